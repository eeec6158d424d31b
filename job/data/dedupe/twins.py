"""Twins: which rows nearly repeat each other.

Two rows are *similar* as their character trigrams overlap (Jaccard), those of question and answer together, taken
within words so that the order of the words does not matter. Trigrams alone cannot tell a misspelling from another
word: "What is a bull?" and "What is a bill?" overlap as much as "What is the offside rule?" and "What is teh offside
rule?". So similar rows are compared word by word (`spelling`):

    kin             their questions have the same words but for single letters and order, and the same numbers
    near twins      kin whose questions and answers surely say the same: what differs is a misspelling
                    (`data.misspelling`) or a phrase that moved to the front; one of the two rows says nothing new
    doubtful        kin whose answers agree as well, but for all that is known they may be two facts (ethane, ethene)

Near twins are one family, and so are other kin, unless many of them have the same sentence: that is a template whose
words are names ("When does the branch in ... open?"). Kin are looked for among neighbours (`minhash`), which are
compared in full, each row with a bounded number of others.
"""

import itertools
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import datasets
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from job.data.dedupe import casing, signs
from job.data.dedupe.english import is_english
from job.data.dedupe.minhash import CANNED, SKETCH, Bands, Bytes, Indices, neighbours, signatures, trigrams
from job.data.dedupe.misspelling import Seen, is_misspelling
from job.data.dedupe.spelling import MOST_CHANGED, Changes, changes, numbers
from job.data.dedupe.vocabulary import Vocabulary
from job.data.dedupe.wording import normalised
from job.data.rows import BATCH, transformed

LONG_ANSWER = 20
"""Characters from which an equal answer shows kinship, with split.keep_together: answers; "Yes." answers many."""
MOST_COMPARED, MOST_COMPARED_CANNED = 64, 8
"""Pairs of one row that are compared in full; the second if many rows have its answer."""
MOST_WORDINGS = 4
"""More wordings of one sentence, none of which is surely a misspelling, are a template."""
_CANDIDATES = 100_000
"""Pairs whose sketches are compared at once."""
_LEAST_OF_QUESTIONS = 0.2
"""Similarity of two questions of which two words are misspelt, less what sketches may be wrong by."""
_SORTED_BY = 3
_MOST_APART = 10_000

SCHEMA = pa.schema({"question": pa.string(), "answer": pa.string(), "asked": pa.string()})
Pairs = list[tuple[int, int, float]]


def spelled(rows: datasets.Dataset) -> datasets.Dataset:
    """Question and answer of every row, normalised, and the question as it is asked."""

    def change(table: pa.Table) -> pa.Table:
        texts = {name: [normalised(text) for text in table[name].to_pylist()] for name in ("question", "answer")}
        return pa.table({**texts, "asked": table["question"]}, schema=SCHEMA)

    return transformed(rows.select_columns(["question", "answer"]), change, SCHEMA, "dedupe")


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

    `families`: per row the position of the first row of its family. `twins`: the same, of near twins alone. `apart`:
    pairs of rows (positions, similarity) that are no kin, the most similar ones that were met. `doubtful`: such pairs
    of doubtful rows. `compared`: pairs that were compared in full. `judge`: what has compared them.
    """

    families: Indices
    twins: Indices
    apart: Pairs
    doubtful: Pairs
    compared: int
    judge: "Judge"


def find(rows: datasets.Dataset, threshold: float, answers: bool = False) -> Kin:
    """Families of rows: kin, and kin of kin.

    Args:
        rows: as `spelled` gives them.
        threshold: the similarity from which rows may be kin.
        answers: whether similar rows whose long answers agree are kin as well, whatever they ask.

    A pair at the threshold of 0.7 is met with a probability above 0.999 among 100,000 rows. Among a million it is 0.94
    (0.98 at 0.75), because more bands would bring more false candidates than can be compared.
    """
    with Bands(rows) as bands:
        search = _Search(rows, threshold, answers, *signatures(rows, bands))
        for band in range(bands.count):
            others = [bands.read((band + number) % bands.count) for number in range(1, _SORTED_BY + 1)]
            for left, right in neighbours(bands.read(band), others):
                search.compare(left, right)
    search.finish()
    families = search.families if answers else _without_templates(search.twins, search.families)
    apart, doubtful = _most_similar(search.apart), _most_similar(search.doubtful)
    return Kin(families, search.twins, apart, doubtful, search.compared, search.judge)


class Judge:
    """Whether two similar rows are kin, and surely twins."""

    def __init__(self, rows: datasets.Dataset) -> None:
        """`rows`: all of the data, as `spelled` gives them; their words are counted."""
        self._vocabulary = Vocabulary(rows)

    def verdict(self, one: dict[str, str], other: dict[str, str]) -> Literal["twins", "doubtful", "kin", "apart"]:
        if numbers(one["question"]) != numbers(other["question"]):
            return "apart"
        asked = changes(one["question"], other["question"])
        if asked is None:
            return "apart"
        answered = changes(one["answer"], other["answer"])
        if answered is None:
            return "kin"
        return "twins" if self._surely(one, other, asked, answered) else "doubtful"

    def _surely(self, one: dict[str, str], other: dict[str, str], asked: Changes, answered: Changes) -> bool:
        """What differs alike in question and answer is no misspelling: "legally" and "in a legal manner", "regally" and
        "in a regal manner"."""
        if asked.loose or answered.loose or answered.rotated or asked.letters() & answered.letters():
            return False
        if casing.other_words(one["asked"], other["asked"]):
            return False
        if asked == answered == Changes():
            return True
        if answered.words and casing.other_names(one["asked"], other["asked"]):
            return False
        if answered.words and signs.other_signs(one["asked"], other["asked"]):
            return False
        if not is_english(one["question"].split()) and not is_english(other["question"].split()):
            return False
        if asked.rotated and not asked.words and not answered.words:
            return True
        if max(self._vocabulary.answers[row["answer"]] for row in (one, other)) > CANNED:
            return False  # many questions have this answer, so that both have it shows nothing
        return all(self._misspelt(one, other, pair) for pair in (*asked.words, *answered.words))

    def _misspelt(self, one: dict[str, str], other: dict[str, str], pair: tuple[str, str]) -> bool:
        return is_misspelling(
            *(self._seen(word, row, one, other) for word, row in zip(pair, (one, other), strict=True))
        )

    def _seen(self, word: str, row: dict[str, str], one: dict[str, str], other: dict[str, str]) -> Seen:
        texts = [text.split() for side in (one, other) for text in (side["question"], side["answer"])]
        first, after, *_ = [*row["question"].split(), "", ""]
        return Seen(
            word=word,
            elsewhere=self._vocabulary.words[word] - sum(words.count(word) for words in texts),
            before=after if first == word else "",
            named=casing.named(word, row["asked"]),
            answered=word in row["answer"].split(),
        )


class _Search:
    """Compares candidates, each pair once, and none that are near twins, or twins of twins, already."""

    def __init__(
        self,
        rows: datasets.Dataset,
        threshold: float,
        answers: bool,
        sketches: Bytes,
        letters: Bytes,
        canned: npt.NDArray[np.bool_],
    ) -> None:
        self.rows, self.threshold, self.answers = rows, threshold, answers
        self.sketches, self.letters, self.canned = sketches, letters, canned
        self.judge = Judge(rows)
        self.families: Indices = np.arange(len(rows))
        self.twins: Indices = np.arange(len(rows))
        self.apart: Pairs = []
        self.doubtful: Pairs = []
        self.compared = 0
        self._left = np.where(canned, MOST_COMPARED_CANNED, MOST_COMPARED)
        self._known: set[int] = set()
        self._pending: list[tuple[int, int]] = []

    def compare(self, left: Indices, right: Indices) -> None:
        for start in range(0, len(left), _CANDIDATES):
            part = slice(start, start + _CANDIDATES)
            new = np.flatnonzero(self._alike(left[part], right[part]))
            ones, others = np.minimum(left[part][new], right[part][new]), np.maximum(left[part][new], right[part][new])
            pairs = set((ones * len(self.rows) + others).tolist()) - self._known
            self._known |= pairs
            met = [divmod(pair, len(self.rows)) for pair in sorted(pairs)]
            np.subtract.at(self._left, np.array(met, np.int64).ravel(), 1)
            self._pending += met
            if len(self._pending) >= BATCH:
                self.finish()

    def finish(self) -> None:
        """Compare what is pending: a few pairs at a time would each pay for reading their rows."""
        pairs, self._pending = self._pending, []
        for start in range(0, len(pairs), BATCH):
            kin, twins = self._read(pairs[start : start + BATCH])
            self.families = joined(self.families, kin) if kin else self.families
            self.twins = joined(self.twins, twins) if twins else self.twins

    def _alike(self, left: Indices, right: Indices) -> npt.NDArray[np.bool_]:
        """Whether two rows are not twins yet and may be kin, by their sketches and the letters of their questions."""
        alike: npt.NDArray[np.bool_] = self.twins[left] != self.twins[right]
        alike &= np.maximum(self._left[left], self._left[right]) > 0
        if not self.answers:
            one, other = (self.letters[rows[alike]].astype(np.int16) for rows in (left, right))
            alike[alike] = np.abs(one - other).sum(axis=1) <= 2 * MOST_CHANGED
        left, right = left[alike], right[alike]
        share = (self.sketches[left] == self.sketches[right]).mean(axis=1)
        # four standard deviations below what is expected at the threshold
        least = self.threshold - 4 * (self.threshold * (1 - self.threshold) / SKETCH) ** 0.5
        alike[alike] = share >= np.where(self.canned[left], min(least, _LEAST_OF_QUESTIONS), least)
        return alike

    def _read(self, pairs: list[tuple[int, int]]) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
        """Compare in full; the pairs that are kin, and those that are twins."""
        positions = sorted({position for pair in pairs for position in pair})
        columns = self.rows[positions]
        texts = {
            position: {name: columns[name][number] for name in SCHEMA.names}
            for number, position in enumerate(positions)
        }
        grams = dict(zip(positions, sets(columns["question"], columns["answer"]), strict=True))
        kin, twins = [], []
        self.compared += len(pairs)
        for one, other in pairs:
            similarity = overlap(grams[one], grams[other])
            verdict = self.judge.verdict(texts[one], texts[other]) if similarity >= self.threshold else "apart"
            if verdict == "apart" and not (self.answers and _answers_agree(texts[one], texts[other])):
                self.apart.append((one, other, similarity))
                continue
            kin.append((one, other))
            if verdict == "twins":
                twins.append((one, other))
            elif verdict == "doubtful":
                self.doubtful.append((one, other, similarity))
        self.apart, self.doubtful = (
            _most_similar(found) if len(found) > 10 * _MOST_APART else found for found in (self.apart, self.doubtful)
        )
        return kin, twins


def _answers_agree(one: dict[str, str], other: dict[str, str]) -> bool:
    return len(one["answer"]) >= LONG_ANSWER and changes(one["answer"], other["answer"]) is not None


def _most_similar(pairs: Pairs) -> Pairs:
    return sorted(pairs, key=lambda pair: (-pair[2], pair))[:_MOST_APART]


def _without_templates(twins: Indices, families: Indices) -> Indices:
    """Families, but rows of one that has many wordings, each a family of near twins, are with their twins only."""
    wordings = np.unique(np.stack([families, twins], axis=1), axis=0)[:, 0]
    names, counts = np.unique(wordings, return_counts=True)
    most = min(MOST_WORDINGS, max(1, len(twins) // 2))  # of a few rows some must be left for the other side
    result: Indices = np.where(np.isin(families, names[counts > most]), twins, families)
    return result


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
