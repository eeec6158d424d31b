"""Step: a model, its optimizer, and one optimizer step after the other.

A step gives the same weights whether one forward pass or several compute it, in one process or in many. It is taken
as a whole or not at all. It knows ids and labels, not what they say, and nothing of epochs, checkpoints or the end of
the training.
"""

import logging
import math
from pathlib import Path
from typing import Any, NamedTuple

import datasets
import torch

from job.config.schema import TrainSection
from job.errors import KickoffError
from job.run import checkpoint, out_of_memory
from job.run.machine import Machine
from job.training import divergence
from job.training.geometry import rows_per_step
from job.training.next_token import NextToken
from job.training.objective import Load, Objective
from job.training.schedule import rate

log = logging.getLogger(__name__)


class Outcome(NamedTuple):
    """What came of a step, over all processes."""

    taken: bool
    """False: in fp16 the gradients overflowed. Nothing has changed but their scale, and the step is to be repeated."""
    summed: float
    """Loss, summed over the trained tokens of the step's rows."""
    tokens: int
    """Trained tokens of the step's rows."""
    norm: float
    """Of the gradients, before they were clipped."""
    stop: bool
    """Whether any process wants to stop."""
    save: bool
    """Whether any process wants a checkpoint."""


class _Agreed(NamedTuple):
    """What came of one attempt at a step, over all processes."""

    summed: float
    stop: bool
    save: bool
    lacks_memory: bool
    """Whether the memory of any process did not suffice."""
    norm: float


class Learner:
    """Model, optimizer and gradient scaler, and how many steps they have taken."""

    def __init__(
        self,
        section: TrainSection,
        seed: int,
        source: datasets.Dataset,
        base: Path,
        checkpoints: Path,
        machine: Machine,
        total_steps: int,
        objective: Load = NextToken,
    ) -> None:
        """Load the model.

        Args:
            section: the config's.
            seed: of dropout, together with the step and the process.
            source: the training rows, encoded for the objective, and {"where"}.
            base: the folder of the model to train.
            checkpoints: their folder, which is named when training diverges.
            machine: what to compute with.
            total_steps: of the whole training, for the learning rate.
            objective: loads the model, and knows its loss.
        """
        self.section, self.seed, self.machine, self.total_steps = section, seed, machine, total_steps
        self.source, self.checkpoints = source, checkpoints
        with out_of_memory.convert_errors(
            "while the model was loaded; training needs 16 bytes per parameter for weights, gradients and optimizer",
            "use a smaller model.base, or run on a machine with more memory",
        ):
            self.objective: Objective = objective(section, source, base, machine)
            self.model, self.rows = self.objective.model, self.objective.rows
            self.optimizer = torch.optim.AdamW(self._groups(), lr=section.learning_rate, fused=True)
        self.scaler = torch.amp.GradScaler(machine.device.type, enabled=machine.precision == "fp16")
        self.micro_size = section.batch_size
        self.done = 0
        self.skipped = 0
        self.skipped_in_a_row = 0
        self.first_loss: float | None = None

    @property
    def rate(self) -> float:
        """Learning rate of the last step."""
        return rate(self.section, self.total_steps, max(0, self.done - 1))

    def step(self, rows: list[int], stop: bool = False, save: bool = False) -> Outcome:
        """Take one optimizer step, unless its gradients overflow fp16.

        Args:
            rows: rows of the training set by number, the same in every process.
            stop: whether this process wants to stop.
            save: whether this process wants a checkpoint.

        Returns:
            What all processes have in common.

        Raises:
            Diverged: loss or gradient is no number, the loss exploded, or fp16 overflowed too often in a row.
            OutOfMemory: a single row does not fit.
        """
        while True:
            total = self._accumulate(rows)
            self.scaler.unscale_(self.optimizer)
            norm = self._norm()
            agreed = self._agreed(total, norm, rows, stop, save)
            if not agreed.lacks_memory:
                break
            self._drop_gradients()
        tokens = sum(self.rows.trained[row] for row in rows)
        summed, norm_before = agreed.summed, agreed.norm
        loss = summed / tokens
        taken = not self.scaler.is_enabled() or (math.isfinite(loss) and math.isfinite(norm_before))
        if taken:
            self._require_sane(loss, norm_before, rows)
            self._update(norm)
        else:
            self._skip(rows)
        self.optimizer.zero_grad()
        return Outcome(taken, summed, tokens, norm_before, agreed.stop, agreed.save)

    def load(self, tensors: dict[str, Any]) -> None:
        """Go on from the state dicts of `tensors`, written in any precision: weights and moments are always fp32."""
        self.model.load_state_dict(tensors["model"])
        self.optimizer.load_state_dict(tensors["optimizer"])
        if tensors["scaler"] and self.scaler.is_enabled():
            self.scaler.load_state_dict(tensors["scaler"])

    def tensors(self) -> dict[str, Any]:
        """Give the state dicts for a checkpoint; the scaler's is empty except in fp16."""
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
        }

    def _agreed(
        self, total: torch.Tensor | None, norm: torch.Tensor, rows: list[int], stop: bool, save: bool
    ) -> "_Agreed":
        """Sum losses and requests over all processes, and read them together with the norm, which all have in common.

        One reading, since each waits for the GPU.
        """
        exact, device = self.machine.sum_dtype, self.machine.device
        mine = len(rows[self.machine.rank :: self.machine.processes])
        counts = torch.tensor([stop, save, total is None, mine], dtype=exact, device=device)
        loss = torch.zeros(1, dtype=exact, device=device) if total is None else total.to(exact).reshape(1)
        sums = self.machine.sum(torch.cat([loss, counts]))
        values = torch.cat([sums, norm.to(device, exact).reshape(1)]).tolist()
        summed, stopping, saving, lacks_memory, computed, shared = values
        if computed != len(rows):
            raise KickoffError(
                f"train: the processes computed {computed:.0f} rows of step {self.done + 1}, expected {len(rows)}: "
                "they do not have the same data; all must share one run folder"
            )
        return _Agreed(summed, bool(stopping), bool(saving), bool(lacks_memory), shared)

    def _drop_gradients(self) -> None:
        """Drop the gradients of a step that is repeated, and let the scaler forget that it has seen them."""
        self.optimizer.zero_grad()
        if self.scaler.is_enabled():
            self.scaler.update(self.scaler.get_scale())

    def _update(self, norm: torch.Tensor) -> None:
        """Let the optimizer take its step, with the gradients clipped to `max_grad_norm`."""
        # the fused optimizer divides as it goes, which saves one pass over all gradients; some devices cannot, and a
        # scaler uses the same attribute
        if not self.scaler.is_enabled() and self.machine.device.type in ("cpu", "cuda"):
            self.optimizer.grad_scale = (norm / self.section.max_grad_norm).clamp(min=1)  # type: ignore[attr-defined]
        else:
            torch.nn.utils.clip_grads_with_norm_(self.model.parameters(), self.section.max_grad_norm, norm)
        for group in self.optimizer.param_groups:
            group["lr"] = rate(self.section, self.total_steps, self.done)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.done += 1
        self.skipped_in_a_row = 0

    def _skip(self, rows: list[int]) -> None:
        """Halve the loss scale instead of taking a step whose gradients overflow fp16."""
        before = self.scaler.get_scale()
        self.scaler.update()
        self.skipped += 1
        self.skipped_in_a_row += 1
        if self.skipped_in_a_row == divergence.MOST_OVERFLOWS:
            raise divergence.overflowed(self.done + 1, before, self._sources(rows), self._kept_checkpoint())
        if self.machine.rank == 0:
            log.warning(
                f"fp16: the gradients of step {self.done + 1} overflow; the step is skipped and tried again, its loss "
                f"scaled by {self.scaler.get_scale():g} instead of {before:g} (skipped so far: {self.skipped})"
            )

    def _require_sane(self, loss: float, norm: float, rows: list[int]) -> None:
        """Raise Diverged before the optimizer takes the step, so that no such gradient ever reaches a checkpoint."""
        self.first_loss = loss if self.first_loss is None else self.first_loss
        problem = divergence.symptom(loss, norm, self.first_loss, self.objective.choices)
        if problem is not None:
            raise divergence.diverged(problem, self.done + 1, self._sources(rows), self._kept_checkpoint())

    def _sources(self, rows: list[int]) -> list[str]:
        return list(self.source.select(rows)["where"])

    def _kept_checkpoint(self) -> str:
        return checkpoint.describe_newest(self.checkpoints)

    def _accumulate(self, rows: list[int]) -> torch.Tensor | None:
        """Compute the step's gradients, divided by its trained tokens; both over all processes.

        Returns:
            This process's summed loss; None if its memory did not suffice. The step is then to be repeated, with
            fewer rows in a forward pass: it stays the same step.
        """
        tokens = sum(self.rows.trained[row] for row in rows)
        try:
            return self.objective.accumulate(rows, self.micro_size, self._fp16_scale() / tokens, (self.seed, self.done))
        except Exception as error:
            if not out_of_memory.is_out_of_memory(error):
                raise
        # outside of the handler, which would keep the failed pass's tensors alive
        self.optimizer.zero_grad()
        self.machine.free_cache()
        self._halve()
        self.objective.abandon()
        return None

    def _halve(self) -> None:
        """Compute half as many rows in a forward pass from now on."""
        before = self.micro_size
        self.micro_size = out_of_memory.halved(before, "a single row in a forward pass")
        size = rows_per_step(self.section, self.machine.processes)
        passes = [math.ceil(size / self.machine.processes / rows) for rows in (before, self.micro_size)]
        log.warning(
            f"out of memory: {before} -> {self.micro_size} rows in a forward pass and {passes[0]} -> {passes[1]} "
            f"passes in a step from now on; the effective batch of {size} rows stays the same"
        )

    def _groups(self) -> list[dict[str, Any]]:
        """Group the weights: decay for matrices only, since it harms biases and norms (as in transformers' Trainer)."""
        matrices = [weight for weight in self.model.parameters() if weight.ndim >= 2]
        others = [weight for weight in self.model.parameters() if weight.ndim < 2]
        return [
            {"params": matrices, "weight_decay": self.section.weight_decay},
            {"params": others, "weight_decay": 0.0},
        ]

    def _fp16_scale(self) -> float:
        """Give the factor of the loss that lets small gradients survive fp16; 1 in other precisions."""
        return float(self.scaler.scale(torch.ones((), device=self.machine.device))) if self.scaler.is_enabled() else 1.0

    def _norm(self) -> torch.Tensor:
        """Compute the norm of all gradients together."""
        gradients = [weight.grad for weight in self.model.parameters() if weight.grad is not None]
        return torch.nn.utils.get_total_norm(gradients)
