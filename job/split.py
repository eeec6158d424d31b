"""Split: which rows are trained on and which are kept for testing.

It knows the number of rows and the seed, nothing of what is in them.
"""

import datasets

from job.config import SplitSection


def split(
    section: SplitSection, seed: int, rows: datasets.Dataset, test: datasets.Dataset | None = None
) -> datasets.DatasetDict:
    """Deal the rows into "train" and "test".

    Of two rows or more at least one is for testing and one for training; a single row is trained on, and the
    test set is then empty, which the caller has to say. Test rows that were given apart replace the split.
    """
    if test is not None:
        return datasets.DatasetDict(train=rows, test=test)
    if len(rows) < 2:
        return datasets.DatasetDict(train=rows, test=rows.select([]))
    size = min(max(1, round(section.test_size * len(rows))), len(rows) - 1)
    return rows.train_test_split(test_size=size, seed=seed)
