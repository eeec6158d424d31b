"""MinHash: finds pairs of rows whose trigrams probably overlap, without comparing all pairs.

MinHash (Broder 1997) with locality-sensitive hashing (Leskovec, Rajaraman, Ullman: Mining of Massive Datasets, chapter
3): rensa computes the signatures, their bands are in a file beside the rows, and rows that share a band are neighbours.

It knows normalised texts. It does not know which neighbours are twins.
"""

import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import datasets
import numpy as np
import numpy.typing as npt
import xxhash
from rensa import RMinHash

from job.data.dedupe import spelling
from job.data.rows import BATCH

PERMUTATIONS = 384
"""Values of a signature."""
SKETCH = 64
"""Values of a signature kept in memory, one byte of each, to reject most false candidates without their texts."""
LETTER_BINS = 32
"""Bins of the letter counts of a question."""
MAX_EQUAL_ANSWERS = 8
"""An answer that more rows share is common: it says nothing about which of them are twins."""
_MAX_CANDIDATES = 1e7
"""Expected number of false candidates, over all bands, that the width of a band allows."""
_COMMON_OVERLAP = 0.17
"""Similarity of two rows of a templated data set ("What does the noun ... mean?") that have nothing else in common."""
_FOLLOWERS = 8
"""Next rows in its bucket that a row is paired with."""

Indices = npt.NDArray[np.int64]
Hashes = npt.NDArray[np.uint64]
Bytes = npt.NDArray[np.uint8]


def trigrams(questions: list[str], answers: list[str]) -> tuple[Hashes, Hashes]:
    """Compute each row's set of character trigrams.

    A trigram is three code points of 21 bits and one bit for question or answer, so the numbers are unique. Words are
    padded with a blank on both sides, and trigrams with a blank in the middle are left out.

    Args:
        questions: of the rows, normalised.
        answers: of the rows, normalised.

    Returns:
        The sets one after the other [trigrams], and where each begins, with the end of the last [rows + 1].
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
    is_new = np.ones(len(row), bool)
    is_new[1:] = (row[1:] != row[:-1]) | (grams[1:] != grams[:-1])
    row, grams = row[is_new], grams[is_new]
    return grams, np.searchsorted(row, np.arange(len(questions) + 1)).astype(np.uint64)


class Bands:
    """For each band, the hash of each row's part of the signature, in a file beside the rows: half a kilobyte a row.

    Args:
        rows: the rows that are hashed.

    Attributes:
        width: values of a signature in a band.
        count: number of bands.
    """

    def __init__(self, rows: datasets.Dataset) -> None:
        self.rows, self.width = len(rows), _band_width(len(rows))
        self.count = PERMUTATIONS // self.width
        folder = Path(rows.cache_files[0]["filename"]).parent if rows.cache_files else None
        self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 - closed by __exit__

    def __enter__(self) -> "Bands":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def write(self, start: int, keys: Hashes) -> None:
        """Write the keys of some rows.

        Args:
            start: position of the first.
            keys: [rows, bands].
        """
        for band, column in enumerate(keys.T):
            self._file.seek((band * self.rows + start) * keys.itemsize)
            self._file.write(column.tobytes())

    def read(self, band: int) -> Hashes:
        """Read the keys of all rows in one band."""
        self._file.seek(band * self.rows * np.dtype(np.uint64).itemsize)
        return np.fromfile(self._file, np.uint64, self.rows)


def signatures(rows: datasets.Dataset, bands: Bands) -> tuple[Bytes, Bytes, npt.NDArray[np.bool_]]:
    """Compute each row's MinHash signature, and write its bands.

    A common answer, which more than MAX_EQUAL_ANSWERS rows share, would make all of them neighbours. So only the
    question of such a row goes into its signature, and its neighbours all have the same answer.

    Args:
        rows: normalised.
        bands: where the bands are written.

    Returns:
        The rows' sketches [rows, SKETCH]; the letter counts of their questions [rows, LETTER_BINS]; and which rows have
        a common answer [rows].
    """
    sketches, letters = np.empty((len(rows), SKETCH), np.uint8), np.empty((len(rows), LETTER_BINS), np.uint8)
    answers = np.concatenate([hash_texts(batch["answer"]) for batch in rows.iter(BATCH)] or [np.empty(0, np.uint64)])
    _, answer_index, counts = np.unique(answers, return_inverse=True, return_counts=True)
    has_common_answer: npt.NDArray[np.bool_] = counts[answer_index] > MAX_EQUAL_ANSWERS
    start = 0
    for batch in rows.iter(BATCH):
        part = slice(start, start + len(batch["question"]))
        answer_texts = [
            "" if shared else text for text, shared in zip(batch["answer"], has_common_answer[part], strict=True)
        ]
        grams, starts = trigrams(batch["question"], answer_texts)
        # rensa's threads do not survive a fork, so only this process calls it
        matrix = RMinHash.digest_matrix_from_flat_token_hashes(_mix(grams), starts, PERMUTATIONS, 42)
        values = np.array(matrix.to_rows(), np.uint32)
        meeting_key = _hash_numbers(batch["question"]) ^ np.where(has_common_answer[part], answers[part], np.uint64(0))
        keys = np.repeat(meeting_key[:, None], bands.count, axis=1)
        for column in range(bands.width):
            keys = _mix(keys ^ values[:, column : bands.count * bands.width : bands.width])
        bands.write(start, keys)
        sketches[part], letters[part] = values[:, :SKETCH] & 255, _count_letters(batch["question"])
        start += len(keys)
    return sketches, letters, has_common_answer


def _count_letters(texts: list[str]) -> Bytes:
    """The counts of each text's letters, at most 255, without blanks; some letters share a bin."""
    bare = [text.replace(" ", "") for text in texts]
    codes = np.frombuffer("".join(bare).encode("utf-32-le"), np.uint32) % LETTER_BINS
    rows = np.repeat(np.arange(len(bare)), [len(text) for text in bare])
    counts = np.bincount(rows * LETTER_BINS + codes, minlength=len(bare) * LETTER_BINS)
    return np.minimum(counts, 255).astype(np.uint8).reshape(len(bare), LETTER_BINS)


def _band_width(rows: int) -> int:
    """Values in a band: as few as the number of rows allows. Fewer find more twins, and more false candidates."""
    pairs = rows * (rows - 1) / 2
    return next(
        width
        for width in range(2, PERMUTATIONS)
        if pairs * (PERMUTATIONS // width) * _COMMON_OVERLAP**width <= _MAX_CANDIDATES
    )


def _hash_numbers(questions: list[str]) -> Hashes:
    """A hash of each question's numbers: rows with different numbers are not related, so they need not meet."""
    return hash_texts(" ".join(spelling.numbers(text)) for text in questions)


def hash_texts(texts: Iterable[str]) -> Hashes:
    """Hash each text to 64 bits (xxHash3)."""
    return np.array([xxhash.xxh3_64_intdigest(text.encode()) for text in texts], np.uint64)


def _mix(numbers: Hashes) -> Hashes:
    """The numbers spread evenly over 64 bits, one to one, by the finalizer of MurmurHash3."""
    for factor in (0xFF51AFD7ED558CCD, 0xC4CEB9FE1A85EC53):
        numbers = (numbers ^ (numbers >> np.uint64(33))) * np.uint64(factor)
    return numbers ^ (numbers >> np.uint64(33))


def neighbours(keys: Hashes, tie_breakers: list[Hashes]) -> Iterator[tuple[Indices, Indices]]:
    """Pair rows that have the same key: each with its next followers in the bucket, and with the bucket's first.

    So a bucket of more than _FOLLOWERS rows does not yield all its pairs. It is sorted by the keys of other bands, so
    that similar rows follow each other.

    Args:
        keys: of all rows in one band [rows].
        tie_breakers: their keys in some other bands.

    Yields:
        Positions of the pairs' first rows, and of their second rows.
    """
    order = np.argsort(keys, kind="stable")
    ordered = keys[order]
    is_first = np.ones(len(keys), bool)
    is_first[1:] = ordered[1:] != ordered[:-1]
    starts = np.flatnonzero(is_first)
    sizes = np.diff(np.append(starts, len(keys)))
    crowded = np.repeat(sizes > _FOLLOWERS, sizes)
    if crowded.any():
        rows = order[crowded]
        order[crowded] = rows[np.lexsort((rows, *(other[rows] for other in reversed(tie_breakers)), keys[rows]))]
    first_of_bucket = order[np.repeat(starts, sizes)]
    for distance in range(1, _FOLLOWERS + 1):
        same = ordered[distance:] == ordered[:-distance]
        if not same.any():
            return
        yield order[:-distance][same], order[distance:][same]
        if distance == 1:
            yield first_of_bucket[~is_first], order[~is_first]
