"""Draw: the share of a source's rows that its weight says, drawn while they are read.

Of every thousand rows the same share is drawn, which ones a seed decides. So the rows need not be counted first, the
number drawn is exact, and it does not matter in what portions they are read. It does not know what is in a row.
"""

from collections.abc import Iterator

import numpy as np

from job.data.files import Chunk

_BLOCK = 1000


class Draw:
    """One draw may go through several files, whose rows count together.

    Args:
        weight: the share, above 0 and at most 1.
        seed: of numpy's generator.
    """

    def __init__(self, weight: float, seed: list[int]) -> None:
        self.weight = weight
        self.seen = self.not_drawn = 0
        self._generator = np.random.default_rng(seed)

    def drawn(self, chunks: Iterator[Chunk]) -> Iterator[Chunk]:
        """The chunks with the rows that were drawn."""
        if self.weight == 1:
            yield from chunks
            return
        parts: list[Chunk] = []
        held = 0
        for chunk in chunks:
            start = 0
            while start < len(chunk.places):
                stop = min(len(chunk.places), start + _BLOCK - held)
                parts.append(chunk.taken(range(start, stop)))
                held += stop - start
                start = stop
                if held == _BLOCK:
                    yield from self._from_block(parts, held)
                    parts, held = [], 0
        yield from self._from_block(parts, held)

    def _from_block(self, parts: list[Chunk], held: int) -> Iterator[Chunk]:
        due = self._due(self.seen + held) - self._due(self.seen)
        chosen = np.sort(self._generator.permutation(held)[:due])
        self.seen += held
        self.not_drawn += held - due
        start = 0
        for part in parts:
            stop = start + len(part.places)
            yield part.taken((chosen[(chosen >= start) & (chosen < stop)] - start).tolist())
            start = stop

    def _due(self, rows: int) -> int:
        return int(self.weight * rows + 0.5)
