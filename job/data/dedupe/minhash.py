"""MinHash: pairs of rows whose trigrams probably overlap, without comparing all with all.

Locality-sensitive hashing (Broder 1997; Leskovec, Rajaraman, Ullman: Mining of Massive Datasets, chapter 3): rensa
computes the signatures, whose bands lie in a file beside the rows, and rows that share a band are neighbours.

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
SKETCH = 64
"""Of each signature so many values are kept, a byte of each, to tell most false candidates without their texts."""
LETTERS = 32
CANNED = 8
"""An answer that more rows share says nothing about which of them are twins."""
_MOST_CANDIDATES = 1e7
_COMMON_OVERLAP = 0.17
"""Similarity of two rows of a templated data set ("What does the noun ... mean?") that have nothing else in common."""
_FOLLOWERS = 8

Indices = npt.NDArray[np.int64]
Hashes = npt.NDArray[np.uint64]
Bytes = npt.NDArray[np.uint8]


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


class Bands:
    """Per band a hash of each row's part of the signature, in a file beside the rows: half a kilobyte a row."""

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
        """The keys [rows, bands] of the rows from `start` on."""
        for band, column in enumerate(keys.T):
            self._file.seek((band * self.rows + start) * keys.itemsize)
            self._file.write(column.tobytes())

    def read(self, band: int) -> Hashes:
        """The keys of all rows in one band."""
        self._file.seek(band * self.rows * np.dtype(np.uint64).itemsize)
        return np.fromfile(self._file, np.uint64, self.rows)


def signatures(rows: datasets.Dataset, bands: Bands) -> tuple[Bytes, Bytes, npt.NDArray[np.bool_]]:
    """Write each row's bands of its MinHash signature.

    An answer that more than CANNED rows share would make all of them neighbours. The signatures of such rows are those
    of their questions, and only rows with this answer can meet.

    Returns:
        The rows' sketches; how often each letter stands in their questions, in LETTERS bins; and which rows have an
        answer that many share.
    """
    sketches, letters = np.empty((len(rows), SKETCH), np.uint8), np.empty((len(rows), LETTERS), np.uint8)
    answers = np.concatenate([hashed(batch["answer"]) for batch in rows.iter(BATCH)] or [np.empty(0, np.uint64)])
    _, places, counts = np.unique(answers, return_inverse=True, return_counts=True)
    canned: npt.NDArray[np.bool_] = counts[places] > CANNED
    start = 0
    for batch in rows.iter(BATCH):
        part = slice(start, start + len(batch["question"]))
        own = ["" if shared else text for text, shared in zip(batch["answer"], canned[part], strict=True)]
        grams, starts = trigrams(batch["question"], own)
        # rensa's threads do not survive a fork, so only this process calls it
        matrix = RMinHash.digest_matrix_from_flat_token_hashes(_mixed(grams), starts, PERMUTATIONS, 42)
        values = np.array(matrix.to_rows(), np.uint32)
        met = _numbers(batch["question"]) ^ np.where(canned[part], answers[part], np.uint64(0))
        keys = np.repeat(met[:, None], bands.count, axis=1)
        for column in range(bands.width):
            keys = _mixed(keys ^ values[:, column : bands.count * bands.width : bands.width])
        bands.write(start, keys)
        sketches[part], letters[part] = values[:, :SKETCH] & 255, _letters(batch["question"])
        start += len(keys)
    return sketches, letters, canned


def _letters(texts: list[str]) -> Bytes:
    """How often each letter stands in each text, up to 255 times; some letters share a bin. Blanks do not count."""
    bare = [text.replace(" ", "") for text in texts]
    codes = np.frombuffer("".join(bare).encode("utf-32-le"), np.uint32) % LETTERS
    rows = np.repeat(np.arange(len(bare)), [len(text) for text in bare])
    counts = np.bincount(rows * LETTERS + codes, minlength=len(bare) * LETTERS)
    return np.minimum(counts, 255).astype(np.uint8).reshape(len(bare), LETTERS)


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
    return hashed(" ".join(spelling.numbers(text)) for text in questions)


def hashed(texts: Iterable[str]) -> Hashes:
    """64 bits of each text."""
    return np.array([xxhash.xxh3_64_intdigest(text.encode()) for text in texts], np.uint64)


def _mixed(numbers: Hashes) -> Hashes:
    """Evenly spread over 64 bits, one to one (the finalizer of MurmurHash3)."""
    for factor in (0xFF51AFD7ED558CCD, 0xC4CEB9FE1A85EC53):
        numbers = (numbers ^ (numbers >> np.uint64(33))) * np.uint64(factor)
    return numbers ^ (numbers >> np.uint64(33))


def neighbours(keys: Hashes, after: list[Hashes]) -> Iterator[tuple[Indices, Indices]]:
    """Pairs of rows with the same key: each with its nearest followers and with the first of all.

    In a bucket of more than _FOLLOWERS rows not all pairs are named. Such a bucket is put in order by the keys of other
    bands, so that the rows that follow each other are those that are most alike.

    Args:
        keys: of all rows in one band.
        after: their keys in some other bands.
    """
    order = np.argsort(keys, kind="stable")
    ordered = keys[order]
    begins = np.ones(len(keys), bool)
    begins[1:] = ordered[1:] != ordered[:-1]
    starts = np.flatnonzero(begins)
    sizes = np.diff(np.append(starts, len(keys)))
    crowded = np.repeat(sizes > _FOLLOWERS, sizes)
    if crowded.any():
        rows = order[crowded]
        order[crowded] = rows[np.lexsort((rows, *(other[rows] for other in reversed(after)), keys[rows]))]
    first = order[np.repeat(starts, sizes)]
    for distance in range(1, _FOLLOWERS + 1):
        same = ordered[distance:] == ordered[:-distance]
        if not same.any():
            return
        yield order[:-distance][same], order[distance:][same]
        if distance == 1:
            yield first[~begins], order[~begins]
