"""Searches the published vectors: the distinct answers that are nearest to a question, by exact cosine similarity.

A row's score is the larger of the question's similarity to the row's answer and to the row's question. An answer's
score is that of its best row. Its confidence is the question's similarity to that row as one text: a question is near
to many questions of the same form, so the score alone does not tell what is not known.

The search is exact: one matrix product with all vectors, then the few best rows again in float64, so that equal vectors
have equal scores wherever they are and whatever else is in the batch. Of equal scores the lower id comes first.
Among very many rows the product is replaced by an index of near vectors (`Neighbours`); the rest is the same.

It knows vectors and rows. It does not know the encoder or requests.
"""

from typing import TYPE_CHECKING

import numpy as np
import torch

from serve.retriever.request import Hit
from serve.retriever.rows import Array, Rows

if TYPE_CHECKING:
    from serve.retriever.neighbours import Neighbours

DIGITS = 6
"""Decimal places of a score; float32 is not certain of more."""
MARGIN = 1e-4
"""Scores this close to the last place are computed again, so that rounding in float32 excludes no answer."""
PRODUCT_BYTES = 2**27
"""Memory for the scores of one product; a larger batch is searched in parts."""


class Index:
    """The vectors on the encoder's device, and the rows they belong to. Not thread-safe."""

    def __init__(self, rows: Rows, device: torch.device, neighbours: "Neighbours | None" = None) -> None:
        """Prepare the index.

        Args:
            rows: with their vectors.
            device: where the products are computed.
            neighbours: of the same rows, to take candidates from; None compares with all vectors.
        """
        self.rows = rows
        self.width = int(rows.answers.shape[1])
        self._answers, self._questions = rows.answers.to(device), rows.questions.to(device)
        self._question_rows = rows.question_rows.to(device)
        self._neighbours = neighbours
        first, groups = rows.by_answer()
        self.distinct = len(first)
        """The number of distinct answers."""
        self._groups = torch.from_numpy(groups).to(device)
        self._by_group = _Buckets(groups, self.distinct)
        self._by_row = _Buckets(rows.question_rows.numpy(), len(groups))

    @torch.inference_mode()
    def search(self, vectors: torch.Tensor, counts: list[int]) -> list[list[Hit]]:
        """Find the nearest distinct answers of each question.

        Args:
            vectors: float32 (questions, width), of length 1.
            counts: how many answers each question wants.

        Returns:
            For each question its hits, the best first.
        """
        part = max(1, PRODUCT_BYTES // (4 * (len(self._answers) + len(self._questions) + self.distinct)))
        found: list[list[Hit]] = []
        for start in range(0, len(vectors), part):
            some = vectors[start : start + part]
            wanted = counts[start : start + part]
            if self._neighbours is None:
                candidates = self._candidates(some, max(wanted))
            else:
                candidates = list(map(self._neighbours.groups, some.cpu().numpy(), wanted))
            exact = some.double().cpu().numpy()
            found += [
                self._ranked(vector, groups, count)
                for vector, groups, count in zip(exact, candidates, wanted, strict=True)
            ]
        return found

    def _candidates(self, vectors: torch.Tensor, count: int) -> list[Array]:
        """The groups of each question that may be among its `count` best answers."""
        scores = vectors @ self._answers.T
        if len(self._questions):
            rows = self._question_rows.expand(len(vectors), -1)
            scores = scores.scatter_reduce(1, rows, vectors @ self._questions.T, "amax")
        if self.distinct < scores.shape[1]:
            best = scores.new_full((len(vectors), self.distinct), -torch.inf)
            scores = best.scatter_reduce(1, self._groups.expand(len(vectors), -1), scores, "amax")
        last = scores.topk(min(count, self.distinct), dim=1).values[:, -1:]
        near = (scores >= last - MARGIN).cpu().numpy()
        return [np.flatnonzero(line) for line in near]

    def _ranked(self, vector: Array, groups: Array, count: int) -> list[Hit]:
        """The best rows of these groups, one for each group."""
        rows, owners = self._by_group.members(groups)
        scores = self._exact(vector, rows).round(DIGITS) + 0.0  # no -0.0
        taken: set[int] = set()
        hits = []
        for at in np.lexsort((rows, -scores)):
            if owners[at] not in taken:
                taken.add(owners[at])
                hits.append(self._hit(vector, int(rows[at]), float(scores[at])))
                if len(hits) == count:
                    break
        return hits

    def _exact(self, vector: Array, rows: Array) -> Array:
        """The scores of rows, in float64."""
        scores = _products(self.rows.answers, rows, vector)
        asked, owners = self._by_row.members(rows)
        np.maximum.at(scores, owners, _products(self.rows.questions, asked, vector))
        return scores

    def _hit(self, vector: Array, row: int, score: float) -> Hit:
        table = self.rows.table
        confidence = float(_products(self.rows.rows, np.array([row]), vector).round(DIGITS)[0]) + 0.0
        answer, question, source = (table.column(name)[row].as_py() for name in ("answer", "question", "source"))
        return Hit(answer, score, confidence, source, question)


class _Buckets:
    """The positions at which each value of an array of small integers stands."""

    def __init__(self, values: Array, count: int) -> None:
        self._order = np.argsort(values, kind="stable")
        self._bounds = np.searchsorted(values[self._order], np.arange(count + 1))

    def members(self, values: Array) -> tuple[Array, Array]:
        """List the positions of each of `values`, and for each position which of `values` it belongs to."""
        starts, ends = self._bounds[values], self._bounds[values + 1]
        counts = ends - starts
        owners = np.repeat(np.arange(len(values)), counts)
        offsets = np.arange(counts.sum()) - np.repeat(counts.cumsum() - counts, counts)
        return self._order[starts[owners] + offsets], owners


def _products(vectors: torch.Tensor, rows: Array, vector: Array) -> Array:
    """The products of these rows with a vector, each summed in the same order, whichever rows are asked for."""
    return np.asarray((vectors.numpy()[rows].astype(np.float64) * vector).sum(1))
