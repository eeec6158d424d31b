"""Course: which rows each step of a training takes, and how many there have to be after so many steps.

It depends on the rows, the number of them in a step, and the seed. It does not know how a step is computed.
"""

from typing import NamedTuple

from job.training.batches import epoch_steps
from job.training.objective import EncodedRows


class Amount(NamedTuple):
    """What a number of steps takes."""

    rows: int
    terms: int
    """Terms of the loss: for a generator the trained tokens."""
    tokens: int
    """All tokens of the rows."""


class Course:
    """The rows of every step."""

    def __init__(self, rows: EncodedRows, rows_per_step: int, per_epoch: int, seed: int) -> None:
        self.rows, self.rows_per_step, self.per_epoch, self.seed = rows, rows_per_step, per_epoch, seed
        self._epoch: tuple[int, list[list[int]]] = (-1, [])

    def next_rows(self, done: int) -> list[int]:
        """Look up the rows, by number, of the step that follows `done` steps."""
        epoch, position = divmod(done, self.per_epoch)
        return self._steps(epoch)[position]

    def amount(self, done: int) -> Amount:
        """Count what `done` steps take: each row once in each whole epoch, and the rows of an epoch that was begun."""
        epochs, begun = divmod(done, self.per_epoch)
        rows = [row for step in (self._steps(epochs)[:begun] if begun else []) for row in step]
        return Amount(
            epochs * len(self.rows) + len(rows),
            epochs * sum(self.rows.trained) + sum(self.rows.trained[row] for row in rows),
            epochs * sum(self.rows.lengths) + sum(self.rows.lengths[row] for row in rows),
        )

    def _steps(self, epoch: int) -> list[list[int]]:
        if self._epoch[0] != epoch:
            self._epoch = epoch, epoch_steps(self.rows.lengths, self.rows_per_step, self.seed, epoch)
        return self._epoch[1]
