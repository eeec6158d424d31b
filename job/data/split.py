"""Split: chooses which rows are trained on and which are tested.

It knows groups of rows that belong together, and the seed; nothing of what is in the rows. A group is never divided:
testing a row whose near twin was trained on measures copying.
"""

import logging
from collections.abc import Iterator

import datasets
import numpy as np
import numpy.typing as npt

from job.config.schema import SplitSection
from job.data.dedupe.families import merge_families
from job.data.rows import BATCH
from job.errors import ConfigError

Indices = npt.NDArray[np.int64]
log = logging.getLogger(__name__)


def split(
    section: SplitSection, seed: int, rows: datasets.Dataset, test: datasets.Dataset | None, families: Indices
) -> datasets.DatasetDict:
    """Split the rows into "train" and "test".

    Of two or more groups at least one is tested and one trained. A single group is trained on; the test set is then
    empty, which the caller has to report. With `folds`, part `fold` is tested, and each row is in one part.

    Args:
        section: the config's section split.
        seed: of the order in which groups are drawn, and of the order of the test rows.
        rows: {"group"} and more; rows with the same group stay together.
        test: separate test rows, which replace the split.
        families: a number for each row; rows with the same number stay together too.

    Returns:
        "train", in the order of the rows, and "test", in random order.

    Raises:
        ConfigError: more folds than groups.
    """
    if test is not None:
        return datasets.DatasetDict(train=rows, test=test)
    groups = number_groups(rows, families)
    sizes = np.bincount(groups)
    if len(sizes) < 2:
        return datasets.DatasetDict(train=rows, test=rows.select([]))
    shuffled = np.random.default_rng(seed).permutation(len(sizes)).tolist()
    test_groups = (
        _take_share(section.test_size, sizes, shuffled)
        if section.folds is None
        else _take_fold(section, sizes, shuffled)
    )
    chosen = np.isin(groups, test_groups)
    tested, trained = np.flatnonzero(chosen), np.flatnonzero(~chosen)
    group_note = f", {len(sizes)} groups" if len(sizes) < len(rows) else ""
    log.info(f"split: {len(trained)} rows to train, {len(tested)} to test{group_note}")
    # evaluation generates answers for the first test rows, so these must not be the file's first
    test_order = np.random.default_rng(seed).permutation(tested)
    return datasets.DatasetDict(train=rows.select(trained), test=rows.select(test_order))


def hold_back(share: float, seed: int, groups: Indices) -> npt.NDArray[np.bool_]:
    """Choose a share of the rows, whole groups of them.

    Args:
        share: of the rows, about.
        seed: of the order in which groups are drawn.
        groups: the number of each row's group, from zero or with gaps; two groups at least.

    Returns:
        True for each row that is held back.
    """
    numbers = np.unique(groups, return_inverse=True)[1]
    sizes = np.bincount(numbers)
    shuffled = np.random.default_rng(seed).permutation(len(sizes)).tolist()
    return np.isin(numbers, _take_share(share, sizes, shuffled))


def _take_share(test_size: float, sizes: Indices, groups: list[int]) -> list[int]:
    """The first groups that fit into the test set; the smallest group if none does."""
    rows = int(sizes.sum())
    target = min(max(1, round(test_size * rows)), rows - 1)
    chosen, count = [], 0
    for group, size in zip(groups, sizes[groups].tolist(), strict=True):
        if count + size <= target:
            chosen.append(group)
            count += size
    return chosen or [min(groups, key=sizes.__getitem__)]


def _take_fold(section: SplitSection, sizes: Indices, groups: list[int]) -> list[int]:
    """The groups of one fold. The largest groups go first, each to the fold with the fewest rows."""
    folds: list[list[int]] = [[] for _ in range(section.folds or 1)]
    rows = [0] * len(folds)
    for group in sorted(groups, key=sizes.__getitem__, reverse=True):
        smallest = rows.index(min(rows))
        folds[smallest].append(group)
        rows[smallest] += int(sizes[group])
    if not all(folds):
        raise ConfigError(f"split.folds: found {section.folds}, and the rows make only {len(sizes)} groups; lower it")
    return folds[section.fold - 1]


def number_groups(rows: datasets.Dataset, families: Indices) -> Indices:
    """Return the group number of each row, from zero: rows of one family or of one value of split.group."""
    _, firsts, numbers = np.unique(families, return_index=True, return_inverse=True)
    merged = merge_families(firsts[numbers], _pairs_of_one_value(rows)) if len(rows) else firsts
    return np.unique(merged, return_inverse=True)[1]


def _pairs_of_one_value(rows: datasets.Dataset) -> Iterator[tuple[int, int]]:
    first: dict[str, int] = {}
    column = rows.select_columns("group")
    for start in range(0, len(rows), BATCH):
        for position, value in enumerate(column[start : start + BATCH]["group"], start):
            if value is not None:
                yield first.setdefault(value, position), position
