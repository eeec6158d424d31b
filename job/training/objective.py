"""Objective: what a training minimizes, as the learner and the loop see it.

`next_token` teaches a generator, `contrastive` a retriever. Learner and loop know steps, rows by number and their
tokens; an objective knows the model, how rows become batches, and the loss.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import datasets
import torch
from torch import nn

from job.config.schema import TrainSection
from job.run.machine import Machine


class EncodedRows(Protocol):
    """Encoded rows, by number."""

    lengths: list[int]
    """Tokens of each row."""
    trained: list[int]
    """Terms of the loss that each row has: the weight of the row in a mean loss."""

    def __len__(self) -> int:
        """Count the rows."""

    def fingerprint(self) -> str:
        """Hash the rows and their order."""


class Objective(Protocol):
    """A model in training, its training rows and its loss."""

    @property
    def model(self) -> nn.Module:
        """The model, whose parameters are trained in fp32."""

    @property
    def rows(self) -> EncodedRows:
        """The training rows."""

    choices: int
    """Among how many things a term of the loss asks for the right one: tokens, or answers."""
    answer_only: bool
    """Whether logits are computed for the answers alone; False where there are no logits."""

    def accumulate(self, rows: list[int], size: int, scale: float, seed: tuple[int, int]) -> torch.Tensor | None:
        """Add the gradients of a step's rows to the weights: `scale` times the summed loss, over all processes.

        Args:
            rows: of the step, by number, the same in every process.
            size: most rows of a forward pass in this process.
            scale: the factor of the summed loss, the same in all processes.
            seed: of the run and of the step, the same in every process.

        Returns:
            This process's summed loss, without the scale. None: another process's memory did not suffice.

        Raises:
            Exception: this process's memory did not suffice, as `out_of_memory` recognizes it. The caller drops the
                gradients, calls `abandon`, and repeats the step with a smaller `size`.
        """

    def abandon(self) -> None:
        """End a step that failed in this process; the caller has dropped its gradients. All have to repeat it."""

    def close(self) -> None:
        """Free what only training needs."""

    def load_test(self, rows: datasets.Dataset) -> None:
        """Take over the test rows, which `test` measures."""

    def test(self, size: int, stop_requested: Callable[[], bool]) -> torch.Tensor:
        """Measure this process's part of the test rows without gradients.

        Args:
            size: most rows of a forward pass in this process.
            stop_requested: asked before each forward pass.

        Returns:
            Summed loss, terms of the loss, and 1 if a stop was requested and the sums are incomplete: [3].
        """

    def save(self, folder: Path) -> None:
        """Write model and tokenizer to a new folder, in the dtype in which the base is stored."""


Load = Callable[[TrainSection, datasets.Dataset, Path, Machine], Objective]
"""(the config's section, training rows, folder of the base, machine) -> the objective."""
