"""Held back: which training rows a search trains on, and on which it measures.

It never sees a test row, so that these can measure the run's model as rows that have chosen nothing.
"""

import datasets

from job.data.split import Indices, hold_back
from job.errors import DataError
from job.evaluation.answers import draw_rows

SHARE = 0.2
"""Of the training rows, held back."""
MOST = 1000
"""Rows held back at most: more would cost time and tell little."""
FEWEST = 20
"""Training rows that a search needs: with fewer than four held back it would measure chance."""


def divide(rows: datasets.Dataset, groups: Indices | None, seed: int, asked: str) -> datasets.DatasetDict:
    """Divide the training rows of a run for its search.

    This is the one place that decides what a search measures on. Today that is rows it has not trained on, with their
    near twins; rewordings of rows that it has trained on may be added here, as rows of "test".

    Args:
        rows: the training rows, encoded.
        groups: the number of each row's group, as the rows were split: near twins and rows of one value of split.group.
        seed: of the draw.
        asked: the config key that needs the search, for the error.

    Returns:
        "train" and "test"; no group is in both.

    Raises:
        DataError: too few rows, or a single group.
    """
    if groups is None:
        raise DataError(
            f"{asked}: found auto, and the data was prepared by an earlier version of Kickoff; choose another output"
        )
    if len(rows) < FEWEST or len(set(groups.tolist())) < 2:
        raise DataError(
            f"{asked}: found auto with {len(rows)} training rows in {len(set(groups.tolist()))} groups; a search holds "
            f"some of them back, so it needs {FEWEST} rows in 2 groups at least; set a number instead of auto"
        )
    held = hold_back(min(SHARE, MOST / len(rows)), seed, groups)
    tested = rows.select(held.nonzero()[0])
    return datasets.DatasetDict(train=rows.select((~held).nonzero()[0]), test=tested)


def draw_part(rows: datasets.Dataset, count: int, seed: int) -> datasets.Dataset:
    """Draw some of the rows that a trial may train on."""
    return rows.select(draw_rows(len(rows), count, seed))
