"""Vocabulary: how often each word, and each whole answer, stands in the data.

Both are kept as 64 bits of a hash: 16 bytes for each word that is new, and for each answer. It knows normalised texts,
whose words have blanks between them.
"""

import datasets
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from job.data.dedupe.minhash import Hashes, hashed

_ROWS = 10_000
"""Rows that are counted at once."""


class Counter:
    """How often each of many texts was counted."""

    def __init__(self) -> None:
        self._names: Hashes = np.empty(0, np.uint64)
        self._counts: npt.NDArray[np.int64] = np.empty(0, np.int64)

    def add(self, texts: pa.Array) -> None:
        found = pc.value_counts(texts)
        names = np.concatenate([self._names, hashed(found.field("values").to_pylist())])
        counts = np.concatenate([self._counts, found.field("counts").to_numpy()])
        self._names, places = np.unique(names, return_inverse=True)
        self._counts = np.bincount(places, counts, len(self._names)).astype(np.int64)

    def __getitem__(self, text: str) -> int:
        """How often the text was counted; 0 if never."""
        wanted = hashed([text])[0]
        place = int(np.searchsorted(self._names, wanted))
        return int(self._counts[place]) if place < len(self._names) and self._names[place] == wanted else 0


class Vocabulary:
    """`words` of the questions and answers of some rows, and their `answers`."""

    def __init__(self, rows: datasets.Dataset) -> None:
        """Count what stands in `rows`, as `twins.spelled` gives them."""
        self.words, self.answers = Counter(), Counter()
        table = rows.with_format("arrow")
        for start in range(0, len(rows), _ROWS):
            batch = table[start : start + _ROWS]
            for name in ("question", "answer"):
                self.words.add(pc.list_flatten(pc.split_pattern(batch[name], " ")).combine_chunks())
            self.answers.add(batch["answer"].combine_chunks())
