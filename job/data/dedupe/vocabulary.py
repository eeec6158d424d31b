"""Vocabulary: counts how often each word, and each whole answer, occurs in the data.

It keeps 64 bits of hash and a count, 16 bytes for each different word and answer. It knows normalised texts, with
blanks between words. It does not know rows.
"""

import datasets
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from job.data.dedupe.minhash import Hashes, hash_texts

_BATCH_ROWS = 10_000
"""Rows counted at once."""


class HashCounter:
    """Counts texts by their hashes."""

    def __init__(self) -> None:
        self._names: Hashes = np.empty(0, np.uint64)
        self._counts: npt.NDArray[np.int64] = np.empty(0, np.int64)

    def add(self, texts: pa.Array) -> None:
        """Count each of some texts once more."""
        counted = pc.value_counts(texts)
        names = np.concatenate([self._names, hash_texts(counted.field("values").to_pylist())])
        counts = np.concatenate([self._counts, counted.field("counts").to_numpy()])
        self._names, inverse = np.unique(names, return_inverse=True)
        self._counts = np.bincount(inverse, counts, len(self._names)).astype(np.int64)

    def __getitem__(self, text: str) -> int:
        """Look up a text's count; 0 if it was never counted."""
        name = hash_texts([text])[0]
        index = int(np.searchsorted(self._names, name))
        return int(self._counts[index]) if index < len(self._names) and self._names[index] == name else 0


class Vocabulary:
    """The counts of all words of some rows, and of their answers.

    Args:
        rows: as `twins.normalise_rows` gives them.

    Attributes:
        words: counts of the words of questions and answers.
        answers: counts of whole answers.
    """

    def __init__(self, rows: datasets.Dataset) -> None:
        self.words, self.answers = HashCounter(), HashCounter()
        table = rows.with_format("arrow")
        for start in range(0, len(rows), _BATCH_ROWS):
            batch = table[start : start + _BATCH_ROWS]
            for name in ("question", "answer"):
                self.words.add(pc.list_flatten(pc.split_pattern(batch[name], " ")).combine_chunks())
            self.answers.add(batch["answer"].combine_chunks())
