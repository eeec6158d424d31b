"""Split: which rows are trained on and which are kept for testing.

It knows groups of rows that belong together, and the seed; nothing of what is in the rows. A group is never divided:
with a row's near twin in training, its test would measure copying.
"""

import logging

import datasets
import numpy as np
import numpy.typing as npt

from job import twins
from job.config import SplitSection
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
    if len(groups) < 2:
        return datasets.DatasetDict(train=rows, test=rows.select([]))
    order = np.random.default_rng(seed).permutation(len(groups)).tolist()
    shuffled = [groups[number] for number in order]
    dealt = _share(section.test_size, len(rows), shuffled) if section.folds is None else _fold(section, shuffled)
    tested = np.concatenate(dealt)
    together = f", {len(groups)} groups" if len(groups) < len(rows) else ""
    log.info(f"split: {len(rows) - len(tested)} rows to train, {len(tested)} to test{together}")
    trained = np.setdiff1d(np.arange(len(rows)), tested)
    # the first test rows are answered by generation, so they must not be the file's first
    shown = np.random.default_rng(seed).permutation(tested)
    return datasets.DatasetDict(train=rows.select(trained), test=rows.select(shown))


def _share(size: float, rows: int, groups: list[Indices]) -> list[Indices]:
    """The first groups that fit into a share of the rows; the smallest group if none does."""
    wanted = min(max(1, round(size * rows)), rows - 1)
    dealt, count = [], 0
    for group in groups:
        if count + len(group) <= wanted:
            dealt.append(group)
            count += len(group)
    return dealt or [min(groups, key=len)]


def _fold(section: SplitSection, groups: list[Indices]) -> list[Indices]:
    """One of the folds: the largest groups are dealt first, each to the fold with the fewest rows."""
    folds: list[list[Indices]] = [[] for _ in range(section.folds or 1)]
    sizes = [0] * len(folds)
    for group in sorted(groups, key=len, reverse=True):
        smallest = sizes.index(min(sizes))
        folds[smallest].append(group)
        sizes[smallest] += len(group)
    if not all(folds):
        raise ConfigError(f"split.folds: found {section.folds}, and the rows make only {len(groups)} groups; lower it")
    return folds[section.fold - 1]


def _groups(rows: datasets.Dataset, families: Indices) -> list[Indices]:
    """Positions of the rows that stay together, in order of the first."""
    _, firsts, numbers = np.unique(families, return_index=True, return_inverse=True)
    first: dict[str, int] = {}
    pairs = [
        (first.setdefault(value, position), position)
        for position, value in enumerate(rows["group"][:])
        if value is not None
    ]
    labels = twins.joined(firsts[numbers], pairs)
    order = np.argsort(labels, kind="stable")
    return np.split(order, np.flatnonzero(np.diff(labels[order])) + 1) if len(order) else []
