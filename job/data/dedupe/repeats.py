"""Repeats: the record of what dedupe found beside the rows to drop. It knows the positions of rows, and no rows."""

from dataclasses import dataclass

import numpy as np

from job.run.row_facts import Cluster, Conflict, Doubtful


@dataclass(frozen=True)
class Repeats:
    """What was found beside the rows to drop."""

    families: np.ndarray
    """The number of each kept row's family, test rows first; a family belongs on one side of the split."""
    apart: list[tuple[str, str, float]]
    """Similar pairs of kept rows that are no near twins: both positions and their similarity."""
    doubtful: list[Doubtful]
    clusters: list[Cluster]
    conflicts: list[Conflict]
