"""Twins: finds rows that nearly repeat each other.

The similarity of two rows is the Jaccard index of their character trigrams, those of question and answer together,
taken within words so that word order does not matter. Trigrams alone cannot tell a misspelling from another word: "What
is a bull?" and "What is a bill?" overlap as much as "What is the offside rule?" and "What is teh offside rule?". So
similar rows are compared word by word (`spelling`):

    related         their questions have the same words up to single letters and order, and the same numbers
    near twins      related rows whose questions and answers surely say the same: they differ in a misspelling
                    (`misspelling`) or in a phrase that moved to the front, so one of them adds nothing
    doubtful        related rows whose answers agree too, but which may be two facts (ethane, ethene)

Near twins are one family. So are other related rows, unless many share one sentence: that is a template whose words are
names ("When does the branch in ... open?"). Related rows are searched among neighbours (`minhash`), which are compared
in full, each row with a bounded number of others.
"""

import itertools
from dataclasses import dataclass
from typing import Literal

import datasets
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from job.data.dedupe import casing, signs
from job.data.dedupe.english import is_english
from job.data.dedupe.families import merge_families
from job.data.dedupe.minhash import MAX_EQUAL_ANSWERS, SKETCH, Bands, Bytes, Indices, neighbours, signatures, trigrams
from job.data.dedupe.misspelling import Occurrence, is_misspelling
from job.data.dedupe.spelling import MAX_CHANGED_WORDS, Changes, changes, numbers
from job.data.dedupe.vocabulary import Vocabulary
from job.data.dedupe.wording import normalise_wording
from job.data.rows import BATCH, transform

LONG_ANSWER = 20
"""Characters from which equal answers relate two rows, with split.keep_together: answers; "Yes." answers many."""
MAX_COMPARED, MAX_COMPARED_COMMON = 64, 8
"""Pairs compared in full for one row; the second for a row with a common answer."""
MAX_WORDINGS = 4
"""If a sentence has more wordings, none of which is surely a misspelling, it is a template."""
_CANDIDATE_BATCH = 100_000
"""Pairs of sketches compared at once."""
_MIN_QUESTION_OVERLAP = 0.2
"""Overlap of the sketches of two questions with two misspelt words, less the error of a sketch."""
_SORT_BANDS = 3
_MAX_APART = 10_000

SCHEMA = pa.schema({"question": pa.string(), "answer": pa.string(), "asked": pa.string()})
Pairs = list[tuple[int, int, float]]
"""Positions of two rows, and their similarity."""


def normalise_rows(rows: datasets.Dataset) -> datasets.Dataset:
    """Normalise every row.

    Args:
        rows: {"question", "answer"} and more.

    Returns:
        The rows with SCHEMA: question and answer normalised, and "asked", the question as written.
    """

    def change(table: pa.Table) -> pa.Table:
        texts = {name: [normalise_wording(text) for text in table[name].to_pylist()] for name in ("question", "answer")}
        return pa.table({**texts, "asked": table["question"]}, schema=SCHEMA)

    return transform(rows.select_columns(["question", "answer"]), change, SCHEMA, "dedupe")


def trigram_sets(questions: list[str], answers: list[str]) -> list[frozenset[int]]:
    """Compute each row's set of trigrams, of normalised questions and answers."""
    grams, starts = (column.tolist() for column in trigrams(questions, answers))
    return [frozenset(grams[start:end]) for start, end in itertools.pairwise(starts)]


def jaccard(left: frozenset[int], right: frozenset[int]) -> float:
    """Compute the Jaccard index: the share of the trigrams in either set that are in both."""
    both = len(left & right)
    return both / (len(left) + len(right) - both)


@dataclass(frozen=True)
class Families:
    """The families of some rows."""

    families: Indices
    """For each row the position of the first row of its family."""
    twins: Indices
    """The same for near twins alone."""
    apart: Pairs
    """Unrelated rows, the most similar pairs that were compared."""
    doubtful: Pairs
    """Doubtful rows, the most similar pairs."""
    compared: int
    """Number of pairs compared in full."""
    judge: "Judge"
    """The judge that compared them."""


def find_families(rows: datasets.Dataset, threshold: float, answers: bool = False) -> Families:
    """Find the families of rows: related rows, and rows related to those.

    A pair at the threshold of 0.7 is found with a probability above 0.999 among 100,000 rows. Among a million it is
    0.94 (0.98 at 0.75), because more bands would bring more false candidates than can be compared.

    Args:
        rows: as `normalise_rows` gives them.
        threshold: the similarity from which rows may be related.
        answers: whether similar rows with long answers that agree are related too, whatever they ask.
    """
    with Bands(rows) as bands:
        search = _Search(rows, threshold, answers, *signatures(rows, bands))
        for band in range(bands.count):
            others = [bands.read((band + number) % bands.count) for number in range(1, _SORT_BANDS + 1)]
            for left, right in neighbours(bands.read(band), others):
                search.compare(left, right)
    search.finish()
    families = search.families if answers else _split_templates(search.twins, search.families)
    apart, doubtful = _most_similar(search.apart), _most_similar(search.doubtful)
    return Families(families, search.twins, apart, doubtful, search.compared, search.judge)


class Judge:
    """Decides how two similar rows relate to each other.

    Args:
        rows: all rows, as `normalise_rows` gives them, whose words are counted.
    """

    def __init__(self, rows: datasets.Dataset) -> None:
        self._vocabulary = Vocabulary(rows)

    def verdict(self, one: dict[str, str], other: dict[str, str]) -> Literal["twins", "doubtful", "related", "apart"]:
        """Judge two similar rows, with the columns of SCHEMA; "apart" means not related."""
        if numbers(one["question"]) != numbers(other["question"]):
            return "apart"
        in_question = changes(one["question"], other["question"])
        if in_question is None:
            return "apart"
        in_answer = changes(one["answer"], other["answer"])
        if in_answer is None:
            return "related"
        return "twins" if self._are_surely_twins(one, other, in_question, in_answer) else "doubtful"

    def _are_surely_twins(
        self, one: dict[str, str], other: dict[str, str], in_question: Changes, in_answer: Changes
    ) -> bool:
        # the same difference in question and answer is not a misspelling: legally, "in a legal manner"; regally, ...
        if in_question.loose or in_answer.loose or in_answer.rotated or in_question.letters() & in_answer.letters():
            return False
        if casing.differ_in_sharp_s(one["asked"], other["asked"]):
            return False
        if in_question == in_answer == Changes():
            return True
        if in_answer.words and casing.differ_in_names(one["asked"], other["asked"]):
            return False
        if in_answer.words and signs.differ_in_signs(one["asked"], other["asked"]):
            return False
        if not is_english(one["question"].split()) and not is_english(other["question"].split()):
            return False
        if in_question.rotated and not in_question.words and not in_answer.words:
            return True
        if max(self._vocabulary.answers[row["answer"]] for row in (one, other)) > MAX_EQUAL_ANSWERS:
            return False  # many questions have this answer, so that both have it shows nothing
        return all(self._is_misspelt(one, other, pair) for pair in (*in_question.words, *in_answer.words))

    def _is_misspelt(self, one: dict[str, str], other: dict[str, str], pair: tuple[str, str]) -> bool:
        return is_misspelling(
            *(self._occurrence(word, row, one, other) for word, row in zip(pair, (one, other), strict=True))
        )

    def _occurrence(self, word: str, row: dict[str, str], one: dict[str, str], other: dict[str, str]) -> Occurrence:
        texts = [text.split() for side in (one, other) for text in (side["question"], side["answer"])]
        first, after, *_ = [*row["question"].split(), "", ""]
        return Occurrence(
            word=word,
            elsewhere=self._vocabulary.words[word] - sum(words.count(word) for words in texts),
            next_word=after if first == word else "",
            is_name=casing.is_name(word, row["asked"]),
            in_answer=word in row["answer"].split(),
        )


class _Search:
    """The search for families: compares candidates, each pair once, unless they are known to be twins already."""

    def __init__(
        self,
        rows: datasets.Dataset,
        threshold: float,
        answers: bool,
        sketches: Bytes,
        letters: Bytes,
        has_common_answer: npt.NDArray[np.bool_],
    ) -> None:
        self.rows, self.threshold, self.answers = rows, threshold, answers
        self.sketches, self.letters, self.has_common_answer = sketches, letters, has_common_answer
        self.judge = Judge(rows)
        self.families: Indices = np.arange(len(rows))
        self.twins: Indices = np.arange(len(rows))
        self.apart: Pairs = []
        self.doubtful: Pairs = []
        self.compared = 0
        self._budget = np.where(has_common_answer, MAX_COMPARED_COMMON, MAX_COMPARED)
        self._seen_pairs: set[int] = set()
        self._pending: list[tuple[int, int]] = []

    def compare(self, left: Indices, right: Indices) -> None:
        for start in range(0, len(left), _CANDIDATE_BATCH):
            part = slice(start, start + _CANDIDATE_BATCH)
            new = np.flatnonzero(self._may_be_related(left[part], right[part]))
            ones, others = np.minimum(left[part][new], right[part][new]), np.maximum(left[part][new], right[part][new])
            pairs = set((ones * len(self.rows) + others).tolist()) - self._seen_pairs
            self._seen_pairs |= pairs
            new_pairs = [divmod(pair, len(self.rows)) for pair in sorted(pairs)]
            np.subtract.at(self._budget, np.array(new_pairs, np.int64).ravel(), 1)
            self._pending += new_pairs
            if len(self._pending) >= BATCH:
                self.finish()

    def finish(self) -> None:
        """Compare the pending pairs, many at a time, since reading their rows is slow."""
        pairs, self._pending = self._pending, []
        for start in range(0, len(pairs), BATCH):
            related, twins = self._compare_in_full(pairs[start : start + BATCH])
            self.families = merge_families(self.families, related) if related else self.families
            self.twins = merge_families(self.twins, twins) if twins else self.twins

    def _may_be_related(self, left: Indices, right: Indices) -> npt.NDArray[np.bool_]:
        """Whether pairs are not twins yet and may be related, by their sketches and the letters of the questions."""
        mask: npt.NDArray[np.bool_] = self.twins[left] != self.twins[right]
        mask &= np.maximum(self._budget[left], self._budget[right]) > 0
        if not self.answers:
            one, other = (self.letters[rows[mask]].astype(np.int16) for rows in (left, right))
            mask[mask] = np.abs(one - other).sum(axis=1) <= 2 * MAX_CHANGED_WORDS
        left, right = left[mask], right[mask]
        agreement = (self.sketches[left] == self.sketches[right]).mean(axis=1)
        # four standard deviations below the expected agreement at the threshold
        minimum = self.threshold - 4 * (self.threshold * (1 - self.threshold) / SKETCH) ** 0.5
        mask[mask] = agreement >= np.where(self.has_common_answer[left], min(minimum, _MIN_QUESTION_OVERLAP), minimum)
        return mask

    def _compare_in_full(self, pairs: list[tuple[int, int]]) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
        """Compare pairs in full; return those that are related, and those of them that are twins."""
        positions = sorted({position for pair in pairs for position in pair})
        columns = self.rows[positions]
        texts = {
            position: {name: columns[name][number] for name in SCHEMA.names}
            for number, position in enumerate(positions)
        }
        grams = dict(zip(positions, trigram_sets(columns["question"], columns["answer"]), strict=True))
        related, twins = [], []
        self.compared += len(pairs)
        for one, other in pairs:
            similarity = jaccard(grams[one], grams[other])
            verdict = self.judge.verdict(texts[one], texts[other]) if similarity >= self.threshold else "apart"
            if verdict == "apart" and not (self.answers and _answers_agree(texts[one], texts[other])):
                self.apart.append((one, other, similarity))
                continue
            related.append((one, other))
            if verdict == "twins":
                twins.append((one, other))
            elif verdict == "doubtful":
                self.doubtful.append((one, other, similarity))
        self.apart, self.doubtful = (
            _most_similar(found) if len(found) > 10 * _MAX_APART else found for found in (self.apart, self.doubtful)
        )
        return related, twins


def _answers_agree(one: dict[str, str], other: dict[str, str]) -> bool:
    return len(one["answer"]) >= LONG_ANSWER and changes(one["answer"], other["answer"]) is not None


def _most_similar(pairs: Pairs) -> Pairs:
    return sorted(pairs, key=lambda pair: (-pair[2], pair))[:_MAX_APART]


def _split_templates(twins: Indices, families: Indices) -> Indices:
    """The families, with those of templates, which have many wordings, split into families of near twins."""
    wordings = np.unique(np.stack([families, twins], axis=1), axis=0)[:, 0]
    names, counts = np.unique(wordings, return_counts=True)
    limit = min(MAX_WORDINGS, max(1, len(twins) // 2))  # a small data set needs rows for both sides of the split
    result: Indices = np.where(np.isin(families, names[counts > limit]), twins, families)
    return result
