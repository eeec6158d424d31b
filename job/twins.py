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

Near twins are kin. Kin are found with MinHash and locality-sensitive hashing (Broder 1997; Leskovec, Rajaraman, Ullman:
Mining of Massive Datasets, chapter 3): rensa computes the signatures; whatever shares a band is then compared in full.
"""

import functools
import itertools
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import datasets
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import xxhash
from rapidfuzz.distance import OSA
from rensa import RMinHash

from job.rows import BATCH, transformed

ORDER = "order"
PERMUTATIONS = 384
SKETCH = 64
"""Of each signature so many values are kept, a byte of each, to tell most false candidates without their texts."""
LONG_ANSWER = 20
"""Characters from which an equal answer shows kinship; "Yes." is the answer to many questions."""
_SHORTEST_MISSPELT = 4
_MOST_CANDIDATES = 1e7
_COMMON_OVERLAP = 0.17
"""Similarity of two rows of a templated data set ("What does the noun ... mean?") that have nothing else in common."""
_FOLLOWERS = 8
_CANDIDATES = 100_000
"""Pairs whose sketches are compared at once."""
_MOST_APART = 10_000
_VARIATION = re.compile(r"[\ufe00-\ufe0f]")  # how an emoji is drawn; Unicode counts it as a mark

_DIGIT = re.compile(r"\d")

Indices = npt.NDArray[np.int64]
Hashes = npt.NDArray[np.uint64]
Bytes = npt.NDArray[np.uint8]


class _Spelling(dict[int, str | int]):
    """Per character, what is left of it: letters, marks, digits and symbols stay, punctuation separates words."""

    def __missing__(self, code: int) -> str | int:
        character = chr(code)
        # marks count: they are the vowels of Hindi and the tones of Thai. So do C++, C#, 5 %, R&D
        self[code] = code if unicodedata.category(character)[0] in "LMNS" or character in "#%&@*" else " "
        return self[code]


_SPELLING = _Spelling()


def normalised(text: str) -> str:
    """The text's words and symbols, compatibility-composed and case-folded, blanks between them.

    Punctuation is left out where it is only punctuation. It stays where it stands for itself: between blanks inside the
    text ('What does "!" do?'), or as the dot that begins a name (".NET"). A text of punctuation only is its own words.
    """
    folded = _VARIATION.sub("", unicodedata.normalize("NFKC", text).casefold())
    words = folded.split()
    spelled = [
        _word(word, inside=0 < place < len(words) - 1) if not word.isalnum() else word
        for place, word in enumerate(words)
    ]
    return " ".join(" ".join(spelled).split()) or " ".join(text.split())


def _word(word: str, inside: bool) -> str:
    bare = word.translate(_SPELLING)
    if bare.isspace():
        return word if inside else ""
    return f".{bare.lstrip()}" if word[0] == "." and word[1].isalnum() else bare


def differences(left: str, right: str) -> frozenset[tuple[str, str]] | None:
    """In what two normalised texts differ that have the same words, up to misspellings, order, and blanks inside words.

    Returns:
        The letters that stand for others, and (ORDER, ORDER) if the words stand in another order; None if there are
        words that the other has not.
    """
    if left == right:
        return frozenset()
    words, others = left.split(), right.split()
    ours, theirs = Counter(words), Counter(others)
    found, rest = set(), []
    unmatched = list((theirs - ours).elements())
    for word in (ours - theirs).elements():
        same = next((other for other in unmatched if _misspelt(word, other)), None)
        if same is None:
            rest.append(word)
            continue
        unmatched.remove(same)
        lost, gained = Counter(word) - Counter(same), Counter(same) - Counter(word)
        found.add(("".join(lost), "".join(gained)))
    spoken, other = ("".join(word for word in some if not _aside(word)) for some in (rest, unmatched))
    if spoken != other:
        return None
    if [word for word in words if word in theirs] != [word for word in others if word in ours]:
        found.add((ORDER, ORDER))
    return frozenset(found)


@functools.lru_cache(200_000)
def _misspelt(word: str, other: str) -> bool:
    """One letter wrong, missing, too many or in its neighbour's place; in a word of three letters only the last."""
    if not (_is_word(word) and _is_word(other)):
        return False
    if max(len(word), len(other)) >= _SHORTEST_MISSPELT:
        return OSA.distance(word, other, score_cutoff=1) <= 1
    return len(word) == len(other) == 3 and sorted(word) == sorted(other)


def _is_word(word: str) -> bool:
    return all(unicodedata.category(character)[0] in "LM" for character in word)


def _aside(word: str) -> bool:
    return all(unicodedata.category(character)[0] == "P" for character in word) and not set(word) & set("#%&@*!?/\\")


SCHEMA = pa.schema({"question": pa.string(), "answer": pa.string()})


def spelled(rows: datasets.Dataset) -> datasets.Dataset:
    """Question and answer of every row, normalised."""

    def change(table: pa.Table) -> pa.Table:
        texts = {name: [normalised(text) for text in table[name].to_pylist()] for name in SCHEMA.names}
        return pa.table(texts, schema=SCHEMA)

    return transformed(rows.select_columns(SCHEMA.names), change, SCHEMA, "dedupe")


def trigrams(questions: list[str], answers: list[str]) -> tuple[Hashes, Hashes]:
    """Each row's set of trigrams, of normalised texts.

    A trigram is three code points of 21 bits and one bit for question or answer, so no two share a number. Words are
    padded with a blank on both sides, and a trigram with the blank in its middle is none.

    Returns:
        The sets one after the other, and where each begins, with the end of the last.
    """
    parts = []
    for side, texts in enumerate((questions, answers)):
        padded = [f" {text} " for text in texts]
        codes = np.frombuffer("".join(padded).encode("utf-32-le"), np.uint32).astype(np.uint64)
        row = np.repeat(np.arange(len(texts)), [len(text) for text in padded])[1:-1]
        grams = (codes[:-2] << np.uint64(43)) | (codes[1:-1] << np.uint64(22)) | (codes[2:] << np.uint64(1))
        inside = codes[1:-1] != ord(" ")
        parts.append((row[inside], grams[inside] | np.uint64(side)))
    row, grams = (np.concatenate(columns) for columns in zip(*parts, strict=True))
    order = np.lexsort((grams, row))
    row, grams = row[order], grams[order]
    first = np.ones(len(row), bool)
    first[1:] = (row[1:] != row[:-1]) | (grams[1:] != grams[:-1])
    row, grams = row[first], grams[first]
    return grams, np.searchsorted(row, np.arange(len(questions) + 1)).astype(np.uint64)


def sets(questions: list[str], answers: list[str]) -> list[frozenset[int]]:
    """The same, as sets."""
    grams, starts = trigrams(questions, answers)
    numbers, ends = grams.tolist(), starts.tolist()
    return [frozenset(numbers[start:end]) for start, end in itertools.pairwise(ends)]


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
    keys, sketches = _signatures(rows)
    search = _Search(rows, threshold, sketches)
    for band in range(keys.shape[1]):
        for left, right in _neighbours(keys[:, band]):
            search.compare(left, right)
    search.finish()
    return Kin(search.families, sorted(search.apart, key=lambda pair: (-pair[2], pair))[:_MOST_APART])


def _signatures(rows: datasets.Dataset) -> tuple[Hashes, Bytes]:
    """Per row a hash of each band of its MinHash signature, and the sketch."""
    width = _band_width(len(rows))
    keys = np.empty((len(rows), PERMUTATIONS // width), np.uint64)
    sketches = np.empty((len(rows), SKETCH), np.uint8)
    start = 0
    for batch in rows.iter(BATCH):
        grams, starts = trigrams(batch["question"], batch["answer"])
        # rensa's threads do not survive a fork, so only this process calls it
        matrix = RMinHash.digest_matrix_from_flat_token_hashes(_mixed(grams), starts, PERMUTATIONS, 42)
        signatures = np.array(matrix.to_rows(), np.uint32)
        key = np.repeat(_numbers(batch["question"])[:, None], keys.shape[1], axis=1)
        for column in range(width):
            key = _mixed(key ^ signatures[:, column : keys.shape[1] * width : width])
        end = start + len(signatures)
        keys[start:end], sketches[start:end] = key, signatures[:, :SKETCH] & 255
        start = end
    return keys, sketches


def _band_width(rows: int) -> int:
    """Values in a band: as few as the number of rows allows, since fewer find more twins and more false candidates."""
    pairs = rows * (rows - 1) / 2
    return next(
        width
        for width in range(2, PERMUTATIONS)
        if pairs * (PERMUTATIONS // width) * _COMMON_OVERLAP**width <= _MOST_CANDIDATES
    )


def _numbers(questions: list[str]) -> Hashes:
    """A hash of each question's numbers: rows that ask about other numbers are no kin, so they need not meet."""
    return np.array([xxhash.xxh3_64_intdigest(" ".join(_numbers_of(text)).encode()) for text in questions], np.uint64)


def _numbers_of(text: str) -> list[str]:
    return sorted(word for word in text.split() if _DIGIT.search(word)) if _DIGIT.search(text) else []


def _mixed(numbers: Hashes) -> Hashes:
    """Evenly spread over 64 bits, one to one (the finalizer of MurmurHash3)."""
    for factor in (0xFF51AFD7ED558CCD, 0xC4CEB9FE1A85EC53):
        numbers = (numbers ^ (numbers >> np.uint64(33))) * np.uint64(factor)
    return numbers ^ (numbers >> np.uint64(33))


def _neighbours(keys: Hashes) -> Iterator[tuple[Indices, Indices]]:
    """Pairs of rows with the same key: each with its nearest followers and with the first of all.

    In a bucket of more than _FOLLOWERS rows not all pairs are named. Its rows become one family all the same where they
    are kin, by way of each other.
    """
    order = np.argsort(keys, kind="stable")
    ordered = keys[order]
    begins = np.ones(len(keys), bool)
    begins[1:] = ordered[1:] != ordered[:-1]
    first = order[np.maximum.accumulate(np.where(begins, np.arange(len(keys)), 0))]
    for distance in range(1, _FOLLOWERS + 1):
        same = ordered[distance:] == ordered[:-distance]
        if not same.any():
            return
        yield order[:-distance][same], order[distance:][same]
        if distance == 1:
            yield first[~begins], order[~begins]


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
        return kin


def near(asked: tuple[str, str], answered: tuple[str, str]) -> bool:
    """Whether the words of two similar rows make them near twins.

    What differs alike in question and answer is no misspelling: "legally" and "in a legal manner", "regally" and "in a
    regal manner".
    """
    in_question, in_answer = differences(*asked), differences(*answered)
    return in_question is not None and in_answer is not None and not in_question & in_answer


def are_kin(asked: tuple[str, str], answered: tuple[str, str]) -> bool:
    """Whether the words of two similar rows, given as normalised questions and answers, make them kin."""
    if _numbers_of(asked[0]) != _numbers_of(asked[1]):
        return False
    return differences(*asked) is not None or (len(answered[0]) >= LONG_ANSWER and differences(*answered) is not None)


def joined(families: Indices, pairs: Iterable[tuple[int, int]]) -> Indices:
    """Families after each pair's have become one; a family is named by the smallest of its positions."""
    parent = families.tolist()

    def root(row: int) -> int:
        while parent[row] != row:
            parent[row] = parent[parent[row]]
            row = parent[row]
        return row

    for one, other in pairs:
        low, high = sorted((root(one), root(other)))
        parent[high] = low
    result: Indices = np.array(parent, np.int64)
    while (result != result[result]).any():
        result = result[result]
    return result
