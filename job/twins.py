"""Twins: which rows nearly repeat each other.

Two rows are *similar* as their character trigrams overlap (Jaccard), those of question and answer together, taken
within words so that the order of the words does not matter. Trigrams alone cannot tell a misspelling from another
word: "What is a bull?" and "What is a bill?" overlap as much as "What is the offside rule?" and "What is teh offside
rule?". So similar rows are *twins* only if their words agree as well, up to misspellings, and their numbers and symbols
exactly:

    near twins      similar, and questions and answers agree: one of the two says nothing new; what differs alike in
                    both is another word, not a misspelling
    kin             similar, and questions agree, or long answers do: whoever has seen the one has seen the other;
                    the numbers in the question are the same

Near twins are kin. Kin are looked for among neighbours (`minhash`), which are compared in full.
"""

import itertools
from collections.abc import Iterable
from dataclasses import dataclass

import datasets
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from job.minhash import SKETCH, Bands, Bytes, Indices, neighbours, signatures, trigrams
from job.rows import BATCH, transformed
from job.spelling import differences, normalised, numbers

LONG_ANSWER = 20
"""Characters from which an equal answer shows kinship; "Yes." is the answer to many questions."""
_CANDIDATES = 100_000
"""Pairs whose sketches are compared at once."""
_MOST_APART = 10_000

SCHEMA = pa.schema({"question": pa.string(), "answer": pa.string()})


def spelled(rows: datasets.Dataset) -> datasets.Dataset:
    """Question and answer of every row, normalised."""

    def change(table: pa.Table) -> pa.Table:
        texts = {name: [normalised(text) for text in table[name].to_pylist()] for name in SCHEMA.names}
        return pa.table(texts, schema=SCHEMA)

    return transformed(rows.select_columns(SCHEMA.names), change, SCHEMA, "dedupe")


def sets(questions: list[str], answers: list[str]) -> list[frozenset[int]]:
    """Each row's trigrams."""
    grams, starts = (column.tolist() for column in trigrams(questions, answers))
    return [frozenset(grams[start:end]) for start, end in itertools.pairwise(starts)]


def overlap(left: frozenset[int], right: frozenset[int]) -> float:
    """Jaccard: trigrams in both, of those in either."""
    both = len(left & right)
    return both / (len(left) + len(right) - both)


@dataclass(frozen=True)
class Kin:
    """What `find` found.

    `families`: per row the position of the first row of its family. `apart`: pairs of rows (positions, similarity)
    that are no kin, the most similar ones that were met.
    """

    families: Indices
    apart: list[tuple[int, int, float]]


def find(rows: datasets.Dataset, threshold: float) -> Kin:
    """Families of rows: kin, and kin of kin.

    Args:
        rows: as `spelled` gives them.
        threshold: the similarity from which rows may be kin.

    A pair at the threshold of 0.7 is met with a probability above 0.999 among 100,000 rows. Among a million it is 0.94
    (0.98 at 0.75), because more bands would bring more false candidates than can be compared.
    """
    with Bands(rows) as bands:
        search = _Search(rows, threshold, signatures(rows, bands))
        for band in range(bands.count):
            for left, right in neighbours(bands.read(band)):
                search.compare(left, right)
    search.finish()
    return Kin(search.families, _most_similar(search.apart))


class _Search:
    """Compares candidates, each pair once, and none that are of one family already."""

    def __init__(self, rows: datasets.Dataset, threshold: float, sketches: Bytes) -> None:
        self.rows, self.threshold, self.sketches = rows, threshold, sketches
        self.families: Indices = np.arange(len(rows))
        self.apart: list[tuple[int, int, float]] = []
        self._compared: set[tuple[int, int]] = set()
        self._pending: list[tuple[int, int]] = []

    def compare(self, left: Indices, right: Indices) -> None:
        for start in range(0, len(left), _CANDIDATES):
            part = slice(start, start + _CANDIDATES)
            new = np.flatnonzero(self._alike(left[part], right[part]))
            pairs = set(zip(left[part][new].tolist(), right[part][new].tolist(), strict=True))
            self._pending += sorted(pairs - self._compared)
            self._compared |= pairs
            if len(self._pending) >= BATCH:
                self.finish()

    def finish(self) -> None:
        """Compare what is pending: a few pairs at a time would each pay for reading their rows."""
        pairs, self._pending = self._pending, []
        kin = [pair for start in range(0, len(pairs), BATCH) for pair in self._read(pairs[start : start + BATCH])]
        self.families = joined(self.families, kin) if kin else self.families

    def _alike(self, left: Indices, right: Indices) -> npt.NDArray[np.bool_]:
        """Whether two rows are of different families, and their sketches agree about as often as similar rows' do."""
        apart: npt.NDArray[np.bool_] = self.families[left] != self.families[right]
        left, right = left[apart], right[apart]
        share = (self.sketches[left] == self.sketches[right]).mean(axis=1)
        # four standard deviations below what is expected at the threshold
        apart[apart] = share >= self.threshold - 4 * (self.threshold * (1 - self.threshold) / SKETCH) ** 0.5
        return apart

    def _read(self, pairs: list[tuple[int, int]]) -> list[tuple[int, int]]:
        """Compare in full; the pairs that are kin."""
        positions = sorted({position for pair in pairs for position in pair})
        texts = self.rows[positions]
        place = {position: number for number, position in enumerate(positions)}
        grams = sets(texts["question"], texts["answer"])
        kin = []
        for one, other in pairs:
            here, there = place[one], place[other]
            similarity = overlap(grams[here], grams[there])
            asked, answered = ((texts[name][here], texts[name][there]) for name in SCHEMA.names)
            if similarity >= self.threshold and are_kin(asked, answered):
                kin.append((one, other))
            else:
                self.apart.append((one, other, similarity))
        if len(self.apart) > 10 * _MOST_APART:
            self.apart = _most_similar(self.apart)
        return kin


def _most_similar(pairs: list[tuple[int, int, float]]) -> list[tuple[int, int, float]]:
    return sorted(pairs, key=lambda pair: (-pair[2], pair))[:_MOST_APART]


def near(asked: tuple[str, str], answered: tuple[str, str]) -> bool:
    """Whether the words of two similar rows make them near twins.

    What differs alike in question and answer is no misspelling: "legally" and "in a legal manner", "regally" and "in a
    regal manner".
    """
    in_question, in_answer = differences(*asked), differences(*answered)
    return in_question is not None and in_answer is not None and not in_question & in_answer


def are_kin(asked: tuple[str, str], answered: tuple[str, str]) -> bool:
    """Whether the words of two similar rows, given as normalised questions and answers, make them kin."""
    if numbers(asked[0]) != numbers(asked[1]):
        return False
    return differences(*asked) is not None or (len(answered[0]) >= LONG_ANSWER and differences(*answered) is not None)


def joined(families: Indices, pairs: Iterable[tuple[int, int]]) -> Indices:
    """Families after each pair's have become one; a family is named by the smallest of its positions."""
    parent: dict[int, int] = {}

    def root(family: int) -> int:
        while (above := parent.get(family, family)) != family:
            parent[family] = family = parent.get(above, above)
        return family

    for one, other in pairs:
        low, high = sorted((root(int(families[one])), root(int(families[other]))))
        parent[high] = low
    named = np.arange(len(families))
    for family in parent:
        named[family] = root(family)
    result: Indices = named[families]
    return result
