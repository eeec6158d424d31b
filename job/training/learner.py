"""Learner: a model, its optimizer, and one step after the other.

A step is the same step however it is computed: in one forward pass or in several, by one process or by many. It is
either taken as a whole or not at all. It knows ids and labels, not what they say, and nothing of epochs, checkpoints
or the end of the training.
"""

import logging
import math
from pathlib import Path
from typing import Any, NamedTuple

import datasets
import torch
from transformers import AutoModelForCausalLM, PreTrainedModel

from job.config.schema import TrainSection
from job.errors import KickoffError, OutOfMemory
from job.model.layers import exchange
from job.model.loss import choose
from job.run import checkpoint, out_of_memory
from job.run.machine import Machine
from job.training import divergence
from job.training.batches import Rows, micro_batches
from job.training.geometry import rows_per_step
from job.training.schedule import rate

log = logging.getLogger(__name__)


class Outcome(NamedTuple):
    """Of a step, over all processes."""

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


class Learner:
    def __init__(
        self,
        section: TrainSection,
        seed: int,
        source: datasets.Dataset,
        base: Path,
        checkpoints: Path,
        machine: Machine,
        total_steps: int,
    ) -> None:
        """Load the model in `base` and look at the rows of `source`: {"input_ids", "labels", "where"}."""
        self.section, self.seed, self.machine, self.total_steps = section, seed, machine, total_steps
        self.source = source  # asked where its rows stood when training diverges
        self.checkpoints = checkpoints  # named then, too
        with out_of_memory.convert_errors(
            "while the model was loaded; training needs 16 bytes a parameter for weights, gradients and optimizer",
            "take a smaller model.base, or run on a machine with more memory",
        ):
            self.model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
            self.model.to(machine.device).train()  # type: ignore[arg-type]
            exchange(self.model, machine.device)
            # attention with dropout, for which a CPU has no fused kernel, is then not computed in fp32 under autocast
            torch.backends.cuda.allow_fp16_bf16_reduction_math_sdp(True)  # of every device, whatever its name
            self.pad_id = int(self.model.generation_config.pad_token_id)
            self.rows = Rows(source, self.pad_id)
            self.loss = choose(self.model, *self.rows.batch(self._probe(), machine.device))
            self.optimizer = torch.optim.AdamW(self._groups(), lr=section.learning_rate, fused=True)
        self.scaler = torch.amp.GradScaler(machine.device.type, enabled=machine.precision == "fp16")
        self.micro_size = section.batch_size
        self.done = 0
        self.skipped = 0
        self.skipped_in_a_row = 0
        self.first_loss: float | None = None

    @property
    def rate(self) -> float:
        """The learning rate of the last step."""
        return rate(self.section, self.total_steps, max(0, self.done - 1))

    def step(self, rows: list[int], stop: bool = False, save: bool = False) -> Outcome:
        """One optimizer step over rows of the training set, whose numbers are the same in every process.

        Args:
            stop: whether this process wants to stop.
            save: whether this process wants a checkpoint.
        """
        total = self._accumulate(rows)
        tokens = sum(self.rows.trained[row] for row in rows)
        self._share_gradients()
        self.scaler.unscale_(self.optimizer)
        norm = self._norm()
        summed, stopping, saving, norm_before = self._agreed(total, norm, rows, stop, save)
        loss = summed / tokens
        taken = not self.scaler.is_enabled() or (math.isfinite(loss) and math.isfinite(norm_before))
        if taken:
            self._require_sane(loss, norm_before, rows)
            self._take(norm)
        else:
            self._leave_out(rows)
        self.optimizer.zero_grad()
        return Outcome(taken, summed, tokens, norm_before, bool(stopping), bool(saving))

    def load(self, tensors: dict[str, Any]) -> None:
        """Go on from what `tensors` gave, in any precision: weights and moments are kept in fp32 always."""
        self.model.load_state_dict(tensors["model"])
        self.optimizer.load_state_dict(tensors["optimizer"])
        if tensors["scaler"] and self.scaler.is_enabled():
            self.scaler.load_state_dict(tensors["scaler"])

    def tensors(self) -> dict[str, Any]:
        """State dicts for a checkpoint; the scaler's is empty except in fp16."""
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
        }

    def _agreed(
        self, total: torch.Tensor, norm: torch.Tensor, rows: list[int], stop: bool, save: bool
    ) -> tuple[float, float, float, float]:
        """Summed loss and both wishes over all processes, and the gradients' norm, which all have in common.

        They are read in one go, since a GPU is waited for at each reading.
        """
        exact = self.machine.sum_dtype
        mine = len(rows[self.machine.rank :: self.machine.processes])
        counts = torch.tensor([stop, save, mine], dtype=exact, device=self.machine.device)
        sums = self.machine.sum(torch.cat([total.to(exact).reshape(1), counts]))
        summed, stopping, saving, computed, shared = torch.cat([sums, norm.to(exact).reshape(1)]).tolist()
        if computed != len(rows):
            raise KickoffError(
                f"train: the processes computed {computed:.0f} rows of step {self.done + 1}, expected {len(rows)}: "
                "they do not work on the same data; all have to see one run folder"
            )
        return summed, stopping, saving, shared

    def _take(self, norm: torch.Tensor) -> None:
        """The optimizer's step, with the gradients bounded to `max_grad_norm`."""
        # the fused optimizer divides as it goes, which saves reading and writing all gradients once more; not on every
        # device, and not beside a scaler
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

    def _leave_out(self, rows: list[int]) -> None:
        """Halve the scale instead of taking a step whose gradients overflow fp16."""
        before = self.scaler.get_scale()
        self.scaler.update()
        self.skipped += 1
        self.skipped_in_a_row += 1
        if self.skipped_in_a_row == divergence.MOST_OVERFLOWS:
            raise divergence.overflowed(self.done + 1, before, self._where(rows), self._kept())
        if self.machine.rank == 0:
            log.warning(
                f"fp16: the gradients of step {self.done + 1} overflow; the step is skipped and tried again, its loss "
                f"scaled by {self.scaler.get_scale():g} instead of {before:g} (skipped so far: {self.skipped})"
            )

    def _require_sane(self, loss: float, norm: float, rows: list[int]) -> None:
        """Before the optimizer takes the step, so that no such gradient ever reaches a checkpoint."""
        self.first_loss = loss if self.first_loss is None else self.first_loss
        found = divergence.symptom(loss, norm, self.first_loss, self.model.config.get_text_config().vocab_size)
        if found is not None:
            raise divergence.diverged(found, self.done + 1, self._where(rows), self._kept())

    def _where(self, rows: list[int]) -> list[str]:
        return list(self.source.select(rows)["where"])

    def _kept(self) -> str:
        return checkpoint.describe_newest(self.checkpoints)

    def _accumulate(self, rows: list[int]) -> torch.Tensor:
        """This process's summed loss; gradients, divided by the trained tokens of the step over all processes.

        When memory does not suffice the rows go through in smaller parts: the step stays the same step.
        """
        tokens = sum(self.rows.trained[row] for row in rows)
        while True:
            torch.manual_seed(hash((self.seed, self.done, self.machine.rank)))
            scale = self._fp16_scale() / tokens
            total = torch.zeros((), device=self.machine.device)
            try:
                for part in micro_batches(rows, self.micro_size, self.machine.rank, self.machine.processes):
                    with self.machine.autocast():
                        total += self.loss.backward(*self.rows.batch(part, self.machine.device), scale)
                return total
            except Exception as error:
                if not out_of_memory.is_out_of_memory(error):
                    raise
            self.optimizer.zero_grad()
            self.machine.free_cache()
            self._halve()

    def _halve(self) -> None:
        """Half as many rows in a forward pass from now on."""
        if self.micro_size == 1:
            raise OutOfMemory(
                "out of memory with a single row in a forward pass; take a smaller model.base, lower "
                "model.max_length, or run on a machine with more memory"
            )
        before, self.micro_size = self.micro_size, math.ceil(self.micro_size / 2)
        size = rows_per_step(self.section, self.machine.processes)
        passes = [math.ceil(size / self.machine.processes / rows) for rows in (before, self.micro_size)]
        log.warning(
            f"out of memory: {before} -> {self.micro_size} rows in a forward pass and {passes[0]} -> {passes[1]} "
            f"passes in a step from now on; the effective batch of {size} rows stays"
        )

    def _probe(self) -> list[int]:
        """The rows that the fast way is tried on: unlike in length, so that one of them is padded."""
        order = sorted(range(len(self.rows)), key=self.rows.lengths.__getitem__)
        return list({order[0], order[len(order) // 2]})

    def _groups(self) -> list[dict[str, Any]]:
        """Weight decay for matrices only: on biases and norms it does harm (as in transformers' Trainer)."""
        matrices = [weight for weight in self.model.parameters() if weight.ndim >= 2]
        others = [weight for weight in self.model.parameters() if weight.ndim < 2]
        return [
            {"params": matrices, "weight_decay": self.section.weight_decay},
            {"params": others, "weight_decay": 0.0},
        ]

    def _fp16_scale(self) -> float:
        """What the loss is multiplied by so that small gradients survive fp16; 1 otherwise."""
        return float(self.scaler.scale(torch.ones((), device=self.machine.device))) if self.scaler.is_enabled() else 1.0

    def _share_gradients(self) -> None:
        """Add up the gradients of all processes, once a step; a process without a row adds nothing."""
        if self.machine.processes > 1:
            for weight in self.model.parameters():
                if weight.grad is None:
                    weight.grad = torch.zeros_like(weight)
                self.machine.sum(weight.grad)

    def _norm(self) -> torch.Tensor:
        """Of all gradients together."""
        gradients = [weight.grad for weight in self.model.parameters() if weight.grad is not None]
        return torch.nn.utils.get_total_norm(gradients)
