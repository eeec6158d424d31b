"""Best: the weights with the lowest test loss so far, and when the training has waited long enough for better ones.

The weights are on disk, beside the checkpoints. Each checkpoint records which were the best until then, so that a
resumed training goes on with those of its checkpoint and not with those of a later step that was lost.

It knows steps, losses and state dicts. It does not know how a loss is measured.
"""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import nn

from job.config.schema import TrainSection
from job.errors import KickoffError
from job.run import checkpoint
from job.run.checkpoint import WeightsFile
from job.run.machine import Machine

log = logging.getLogger(__name__)


class Best:
    """The step whose weights become the model, as far as the test loss has been measured."""

    def __init__(self, section: TrainSection, folder: Path, machine: Machine, tested: bool) -> None:
        """Start with no weights.

        Args:
            section: the config's.
            folder: where the checkpoints are.
            machine: process 0 of it decides and writes.
            tested: whether there are test rows; without them the last step's weights are kept.
        """
        self.section, self.folder, self.machine = section, folder, machine
        self.compares = section.keep == "best" and tested
        self.step: int | None = None
        self.loss: float | None = None
        self.misses = 0
        """Measurements in a row that were not better."""
        self.file: WeightsFile | None = None
        """Of process 0 alone; None before the first measurement, and if the last step's weights are the best."""

    @property
    def waited_enough(self) -> bool:
        """Whether `train.patience` ends the training."""
        return self.compares and self.section.patience is not None and self.misses >= self.section.patience

    def start(self) -> None:
        """Say if the weights cannot be compared."""
        if self.section.keep == "best" and not self.compares and self.machine.rank == 0:
            unused = "" if self.section.patience is None else ", and train.patience has no effect"
            log.info(f"train: there is no test row, so the weights of the last step are kept{unused}")

    def consider(self, model: nn.Module, step: int, loss: float, last: bool) -> None:
        """Keep the weights if no earlier test loss was as low.

        Args:
            model: with the weights of this step.
            step: optimizer steps done.
            loss: the test loss.
            last: whether it is the last step of the training; the weights then need not be written.
        """
        loss = self.machine.gather(loss)[0]  # a last bit that differs must not part the processes
        if self.compares and self.loss is not None and loss >= self.loss:
            self.misses += 1
            return
        self.step, self.loss, self.misses = step, loss, 0
        if not self.compares or self.machine.rank > 0:
            return
        self.file = None if last else checkpoint.save_best(self.folder, step, model.state_dict(), self.file)

    def load_into(self, model: nn.Module, done: int) -> None:
        """Give the model the weights that are kept, in process 0.

        Args:
            model: with the weights of the last step that was taken.
            done: the number of that step.

        Raises:
            KickoffError: the file is gone or damaged.
        """
        if not self.compares or self.step == done:
            return
        weights = None if self.file is None else checkpoint.load_best(self.folder, self.file)
        if weights is None:
            raise KickoffError(
                f"train: the weights of step {self.step} in {self.folder} are gone or damaged; run the same command "
                "again to continue from the newest checkpoint that does not need them"
            )
        model.load_state_dict(weights)

    def state(self) -> dict[str, Any]:
        """Give what a checkpoint records, as JSON; `restore` takes it."""
        return {"step": self.step, "loss": self.loss, "misses": self.misses, "file": self.file}

    def restore(self, state: dict[str, Any], on_new_steps: Callable[[int], int]) -> None:
        """Go on from what a checkpoint records; `on_new_steps` converts its steps to those of this training."""
        self.step = None if state["step"] is None else on_new_steps(state["step"])
        self.loss, self.misses = state["loss"], state["misses"]
        self.file = None if state["file"] is None else WeightsFile(*state["file"])
