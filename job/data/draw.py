"""Draw: a random sample of a source's rows, taken while they are read.

Stratified sampling: the same share of every thousand rows is drawn, at random by seed. So the rows need not be counted
first, the number drawn is exact, and the sample does not depend on the size of the chunks. It does not know what is in
a row.
"""

from collections.abc import Iterator

import numpy as np

from job.data.files import Chunk

_BLOCK = 1000
"""Rows of which the same share is drawn."""


class Draw:
    """A sampler. Several files of one source share it, and their rows count together.

    Args:
        weight: share of the rows to draw, above 0 and at most 1.
        seed: for numpy's generator.

    Attributes:
        seen: rows read so far; not counted with a weight of 1.
        not_drawn: those of them that were left out.
    """

    def __init__(self, weight: float, seed: list[int]) -> None:
        self.weight = weight
        self.seen = self.not_drawn = 0
        self._generator = np.random.default_rng(seed)

    def sample(self, chunks: Iterator[Chunk]) -> Iterator[Chunk]:
        """Draw from the rows of a file.

        Yields:
            The chunks with the rows drawn, in their order; some may be empty.
        """
        if self.weight == 1:
            yield from chunks
            return
        pieces: list[Chunk] = []
        count = 0
        for chunk in chunks:
            start = 0
            while start < len(chunk.locations):
                stop = min(len(chunk.locations), start + _BLOCK - count)
                pieces.append(chunk.select_rows(range(start, stop)))
                count += stop - start
                start = stop
                if count == _BLOCK:
                    yield from self._sample_block(pieces, count)
                    pieces, count = [], 0
        yield from self._sample_block(pieces, count)

    def _sample_block(self, pieces: list[Chunk], count: int) -> Iterator[Chunk]:
        quota = self._quota(self.seen + count) - self._quota(self.seen)
        chosen = np.sort(self._generator.permutation(count)[:quota])
        self.seen += count
        self.not_drawn += count - quota
        start = 0
        for piece in pieces:
            stop = start + len(piece.locations)
            yield piece.select_rows((chosen[(chosen >= start) & (chosen < stop)] - start).tolist())
            start = stop

    def _quota(self, rows: int) -> int:
        return int(self.weight * rows + 0.5)
