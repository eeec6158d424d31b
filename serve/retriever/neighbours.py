"""Finds the published vectors that are near a question with an index of faiss (index.faiss), among very many rows.

It gives candidates, which `Index` scores exactly. The index has the vector of the first row of each answer, with that
row as its id, and the vector of each indexed question, whose id is its position plus the number of rows.

The file is mapped, so that engines share its memory. It knows the file and the vectors that it belongs to. It does not
know scores that users see, or requests.
"""

from pathlib import Path
from typing import Any

import faiss
import numpy as np
import torch

from serve.messages import one_line
from serve.retriever.files import AGAIN, NEIGHBOURS
from serve.retriever.rows import Array, Rows

PROBES = 64
"""Lists that are searched at first, of about two times the square root of the number of vectors."""
SPARE = 60
"""Vectors beyond four for each wanted answer, since several belong to one answer."""
GROWTH = 4
"""By how much more is searched while it is not enough."""
MARGIN = 5e-3
"""An answer this close to the last wanted one may be better than it, since a score whose
vector has one byte a number is rounded. While the last vector found is as close, further ones are searched."""
SAMPLES = 8
LEAST = 0.99
"""Smallest cosine of a published vector with the one that the index finds for it."""


class Neighbours:
    """A mapped index of faiss. Not thread-safe."""

    def __init__(self, folder: Path, rows: Rows) -> None:
        """Open and check the index.

        Raises:
            ValueError: it cannot be read, or does not belong to the vectors; the text is one line.
        """
        self._index = _read(folder / NEIGHBOURS)
        first, groups = rows.by_answer()
        self._groups = np.concatenate([groups, groups[rows.question_rows.numpy()]])
        """Of each id the answer's number."""
        self._distinct = len(first)
        _check(self._index, rows, first)
        faiss.omp_set_num_threads(torch.get_num_threads())

    def groups(self, vector: Array, count: int) -> Array:
        """Find the answers that are probably the best of a question.

        Questions are searched one by one: in a batch faiss computes in another order, and other lists could be read.

        Args:
            vector: float32 (width).
            count: how many answers the question wants.

        Returns:
            The numbers of at least so many answers, or of all.
        """
        near, probes = GROWTH * count + SPARE, PROBES
        while True:
            near, probes = min(near, self._index.ntotal), min(probes, self._index.nlist)
            scores, ids = self._index.search(vector[None], near, params=_probing(probes))
            found, enough = self._distinct_groups(scores[0], ids[0], count)
            if enough or (near == self._index.ntotal and probes == self._index.nlist):
                return found
            near, probes = near * GROWTH, probes * GROWTH

    def _distinct_groups(self, scores: Array, ids: Array, count: int) -> tuple[Array, bool]:
        """The answers that may be among the best, and whether there is none among the vectors that were not found."""
        whole = bool(ids[-1] < 0)  # the lists have no more
        scores, ids = scores[ids >= 0], ids[ids >= 0]
        groups, first = np.unique(self._groups[ids], return_index=True)
        wanted = min(count, self._distinct)
        if len(groups) < wanted:
            return groups, False
        least = scores[np.sort(first)[wanted - 1]] - MARGIN
        return groups[scores[first] >= least], whole or bool(scores[-1] < least)


def _probing(lists: int) -> Any:
    """Make a search read so many lists."""
    parameters = faiss.SearchParametersIVF()
    parameters.nprobe = lists
    return parameters


def _read(path: Path) -> Any:
    try:
        index = faiss.read_index(str(path), faiss.IO_FLAG_MMAP)
    except (RuntimeError, MemoryError) as error:
        _, _, reason = one_line(error).rpartition("Error: ")  # before it stand C++ names
        raise ValueError(f"{NEIGHBOURS} cannot be read ({reason}); {AGAIN}") from None
    if not isinstance(index, faiss.IndexIVFScalarQuantizer):
        raise ValueError(f"{NEIGHBOURS} is a {type(index).__name__}, expected an IndexIVFScalarQuantizer; {AGAIN}")
    lists = faiss.downcast_InvertedLists(index.invlists) if index.invlists is not None else None
    if isinstance(lists, faiss.OnDiskInvertedLists):
        lists.prefetch_nthread = 0  # it would start 32 threads for each search, which takes 2 ms
    return index


def _check(index: Any, rows: Rows, first: Array) -> None:
    """Check that the index has the ids that these rows give, and finds their vectors."""
    width, questions = rows.answers.shape[1], len(rows.questions)
    if index.d != width or index.quantizer.d != width:
        raise ValueError(f"{NEIGHBOURS} has vectors of {index.d} numbers, expected {width}; {AGAIN}")
    if index.metric_type != faiss.METRIC_INNER_PRODUCT or index.quantizer.ntotal != index.nlist:
        raise ValueError(f"{NEIGHBOURS} does not compare cosines, or lacks centroids; {AGAIN}")
    if (index.sq.qtype, index.code_size, index.sq.trained.size()) != (faiss.ScalarQuantizer.QT_8bit, width, 2 * width):
        raise ValueError(f"{NEIGHBOURS} has {index.code_size} bytes a vector, expected {width} of QT_8bit; {AGAIN}")
    expected = np.concatenate([np.sort(first), np.arange(questions) + len(rows.table)])
    if index.ntotal != len(expected):
        raise ValueError(
            f"{NEIGHBOURS} has {index.ntotal} vectors, expected {len(expected)}: one for each of the {len(first)} "
            f"answers and {questions} questions; {AGAIN}"
        )
    if not np.array_equal(np.sort(_ids(index)), expected):
        raise ValueError(f"{NEIGHBOURS} names other rows than {len(first)} answers and {questions} questions; {AGAIN}")
    _compare(index, rows, expected)


def _ids(index: Any) -> Array:
    """The ids in all lists."""
    lists = index.invlists
    sizes = [lists.list_size(number) for number in range(index.nlist)]
    parts = [faiss.rev_swig_ptr(lists.get_ids(number), size) for number, size in enumerate(sizes) if size]
    return np.concatenate(parts) if parts else np.empty(0, dtype=np.int64)


def _compare(index: Any, rows: Rows, expected: Array) -> None:
    """Search a few of the vectors: each must find itself, or an equal one."""
    at = expected[np.unique(np.linspace(0, len(expected) - 1, SAMPLES).astype(np.int64))]
    vectors = _vectors(rows, at)
    _, found = index.search(vectors, 1, params=_probing(min(PROBES, index.nlist)))
    cosines = np.where(found[:, 0] < 0, -1.0, (vectors * _vectors(rows, found[:, 0].clip(0))).sum(1))
    worst = int(cosines.argmin())
    if not cosines[worst] > LEAST:
        raise ValueError(
            f"{NEIGHBOURS} was made of other vectors: it finds one with the cosine {cosines[worst]:.4f} for vector "
            f"{at[worst]}, expected above {LEAST}; {AGAIN}"
        )


def _vectors(rows: Rows, ids: Array) -> Array:
    n = len(rows.table)
    parts = [rows.answers[id] if id < n else rows.questions[id - n] for id in ids.tolist()]
    return torch.stack(parts).numpy()
