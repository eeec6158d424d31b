"""Split: which rows are trained on and which are kept for testing.

It knows groups of rows that belong together, and the seed; nothing of what is in the rows. A group is never divided:
with a row's near twin in training, its test would measure copying.
"""

import logging
from collections.abc import Iterator

import datasets
import numpy as np
import numpy.typing as npt

from job.config.schema import SplitSection
from job.data.dedupe import twins
from job.data.rows import BATCH
from job.errors import ConfigError

Indices = npt.NDArray[np.int64]
log = logging.getLogger(__name__)


def split(
    section: SplitSection, seed: int, rows: datasets.Dataset, test: datasets.Dataset | None, families: Indices
) -> datasets.DatasetDict:
    """Deal the rows into "train" and "test".

    Args:
        rows: {"group"} and more; rows with the same group stay together.
        test: test rows given apart; they replace the split.
        families: of each row a number; rows with the same number stay together too.

    Of two groups or more at least one is for testing and one for training; a single group is trained on, and the test
    set is then empty, which the caller has to say. With `folds`, part `fold` is tested; each row is in one part.

    Raises:
        ConfigError: more folds than groups.
    """
    if test is not None:
        return datasets.DatasetDict(train=rows, test=test)
    groups = _groups(rows, families)
    sizes = np.bincount(groups)
    if len(sizes) < 2:
        return datasets.DatasetDict(train=rows, test=rows.select([]))
    shuffled = np.random.default_rng(seed).permutation(len(sizes)).tolist()
    deal = _share(section.test_size, sizes, shuffled) if section.folds is None else _fold(section, sizes, shuffled)
    dealt = np.isin(groups, deal)
    tested, trained = np.flatnonzero(dealt), np.flatnonzero(~dealt)
    together = f", {len(sizes)} groups" if len(sizes) < len(rows) else ""
    log.info(f"split: {len(trained)} rows to train, {len(tested)} to test{together}")
    # the first test rows are answered by generation, so they must not be the file's first
    shown = np.random.default_rng(seed).permutation(tested)
    return datasets.DatasetDict(train=rows.select(trained), test=rows.select(shown))


def _share(share: float, sizes: Indices, groups: list[int]) -> list[int]:
    """The first groups that fit into a share of the rows; the smallest group if none does."""
    rows = int(sizes.sum())
    wanted = min(max(1, round(share * rows)), rows - 1)
    dealt, count = [], 0
    for group, size in zip(groups, sizes[groups].tolist(), strict=True):
        if count + size <= wanted:
            dealt.append(group)
            count += size
    return dealt or [min(groups, key=sizes.__getitem__)]


def _fold(section: SplitSection, sizes: Indices, groups: list[int]) -> list[int]:
    """One of the folds: the largest groups are dealt first, each to the fold with the fewest rows."""
    folds: list[list[int]] = [[] for _ in range(section.folds or 1)]
    rows = [0] * len(folds)
    for group in sorted(groups, key=sizes.__getitem__, reverse=True):
        smallest = rows.index(min(rows))
        folds[smallest].append(group)
        rows[smallest] += int(sizes[group])
    if not all(folds):
        raise ConfigError(f"split.folds: found {section.folds}, and the rows make only {len(sizes)} groups; lower it")
    return folds[section.fold - 1]


def _groups(rows: datasets.Dataset, families: Indices) -> Indices:
    """Of each row the number of its group: rows of one family or one value of split.group, counted from zero."""
    _, firsts, numbers = np.unique(families, return_index=True, return_inverse=True)
    labels = twins.joined(firsts[numbers], _of_one_value(rows)) if len(rows) else firsts
    return np.unique(labels, return_inverse=True)[1]


def _of_one_value(rows: datasets.Dataset) -> Iterator[tuple[int, int]]:
    first: dict[str, int] = {}
    column = rows.select_columns("group")
    for start in range(0, len(rows), BATCH):
        for position, value in enumerate(column[start : start + BATCH]["group"], start):
            if value is not None:
                yield first.setdefault(value, position), position
