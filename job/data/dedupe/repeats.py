"""Repeats: what dedupe found beside the rows to drop. It knows no rows, only their places."""

from dataclasses import dataclass

import numpy as np

from job.run.row_facts import Cluster, Conflict, Doubtful


@dataclass(frozen=True)
class Repeats:
    """What was found beside the rows to drop."""

    families: np.ndarray
    """Of each kept row, test rows first; rows of one family belong on one side of the split."""
    apart: list[tuple[str, str, float]]
    """Similar pairs of kept rows that are no near twins: both places and their similarity."""
    doubtful: list[Doubtful]
    clusters: list[Cluster]
    conflicts: list[Conflict]
