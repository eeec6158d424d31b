"""Families: groups of rows, each row with the number of its family.

It knows the positions of rows. It does not know what makes rows a family.
"""

from collections.abc import Iterable, Iterator

import numpy as np

from job.data.dedupe.minhash import Indices


def merge_families(families: Indices, pairs: Iterable[tuple[int, int]]) -> Indices:
    """Merge the families of each pair (union-find).

    Args:
        families: for each row the number of its family.
        pairs: positions of two rows whose families become one.

    Returns:
        For each row the smallest number among its merged families.
    """
    parent: dict[int, int] = {}

    def root(family: int) -> int:
        while (above := parent.get(family, family)) != family:
            parent[family] = family = parent.get(above, above)
        return family

    for one, other in pairs:
        low, high = sorted((root(int(families[one])), root(int(families[other]))))
        parent[high] = low
    merged = np.arange(len(families))
    for family in parent:
        merged[family] = root(family)
    result: Indices = merged[families]
    return result


def groups_of_equal(names: np.ndarray) -> Iterator[np.ndarray]:
    """Group the positions of equal values.

    Yields:
        The positions, in order, of each value that occurs more than once.
    """
    order = np.argsort(names, kind="stable")
    ordered = names[order]
    bounds = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1], [True]]))
    for several in np.flatnonzero(np.diff(bounds) > 1):
        yield order[bounds[several] : bounds[several + 1]]
