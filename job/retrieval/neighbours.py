"""Neighbours: the index of near vectors in index.faiss, with which a server searches more than a million rows.

The file belongs to the vectors in index.safetensors. It has an inverted file of faiss: the vectors are divided into
lists around centroids, so that a search reads only the lists near a question. A number of a vector takes one byte. The
server takes candidates from it and scores them with the vectors themselves.

    id      vector
    row     of that row's answer, for the first row of each answer_id
    n + at  of the indexed question `at`, where n is the number of rows

The module knows these two files. It does not know encoders, measuring or servers; the job itself searches exactly.
"""

import logging
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray
from safetensors.torch import load_file  # unlike safetensors.numpy, it maps the file

from job.retrieval.index import ANSWERS, VECTORS, Vectors

if TYPE_CHECKING:
    import faiss  # else only where it is used: it brings an OpenMP and a BLAS of its own

FILE = "index.faiss"
EXACT_ROWS = 1_000_000
"""Up to so many rows a matrix product with all vectors is fast enough, and there is no file."""
SAMPLE = 40
"""Vectors for each list that its centroid is computed from; faiss warns below 39."""
ROUNDS = 10
"""Of k-means."""
CHUNK = 2**16
"""Vectors that are added at once."""
log = logging.getLogger(__name__)


def write(folder: Path) -> None:
    """Write index.faiss for the index in a folder if it has more than `EXACT_ROWS` rows; else remove an older one."""
    (folder / FILE).unlink(missing_ok=True)
    ids = pq.read_table(folder / ANSWERS, columns=["answer_id"]).column("answer_id").to_numpy()
    if len(ids) <= EXACT_ROWS:
        return
    import faiss

    began = time.monotonic()
    tensors = load_file(folder / VECTORS)
    index = build(tensors["answers"].numpy(), tensors["questions"].numpy(), ids)
    faiss.write_index(index, str(folder / FILE))
    log.info(
        f"evaluate: {FILE} has {index.ntotal} vectors in {index.nlist} lists, made in {time.monotonic() - began:.0f} s"
    )


def build(answers: Vectors, questions: Vectors, answer_ids: NDArray[np.int64]) -> "faiss.IndexIVFScalarQuantizer":
    """Build the index of one answer vector for each answer, and of all questions.

    Args:
        answers: of each row: [rows, width].
        questions: that are indexed: [questions, width].
        answer_ids: of each row; rows with equal answers share one.
    """
    _, first = np.unique(answer_ids, return_index=True)
    index = _train(answers, questions, first)
    for start in range(0, len(first), CHUNK):
        rows = first[start : start + CHUNK]
        index.add_with_ids(answers[rows], rows)
    for start in range(0, len(questions), CHUNK):
        some = questions[start : start + CHUNK]
        index.add_with_ids(some, np.arange(start, start + len(some)) + len(answers))
    return index


def _train(answers: Vectors, questions: Vectors, first: NDArray[np.int64]) -> "faiss.IndexIVFScalarQuantizer":
    """Compute the centroids of the lists from a sample; a second run gives the same."""
    import faiss

    count, width = len(first) + len(questions), answers.shape[1]
    lists = max(1, min(int(2 * count**0.5), count // SAMPLE))
    drawn = np.sort(np.random.default_rng(0).permutation(count)[: SAMPLE * lists])
    of_answers, of_questions = first[drawn[drawn < len(first)]], drawn[drawn >= len(first)] - len(first)
    sample = np.concatenate([answers[of_answers], questions[of_questions]])
    quantizer = faiss.IndexFlatIP(width)
    kind, metric = faiss.ScalarQuantizer.QT_8bit, faiss.METRIC_INNER_PRODUCT
    index = faiss.IndexIVFScalarQuantizer(quantizer, width, lists, kind, metric)
    index.cp.spherical, index.cp.niter, index.cp.seed = True, ROUNDS, 1
    index.cp.min_points_per_centroid = 1  # very few vectors are one list, without a warning
    index.train(sample)
    return index
