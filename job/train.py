"""Train: full fine-tuning of a causal language model on encoded rows.

It knows ids and labels, not what they say. It reads the base folder and the encoded rows and leaves the folder of
the tuned model, complete or not there; between the two it writes checkpoints, from which it goes on by itself.

Every source of chance is a function of (seed, epoch) or (seed, step, rank). So a resumed training draws the same
row order and the same dropout as an unbroken one, and a checkpoint needs no generator's state.
"""

import json
import logging
import math
import shutil
import time
from pathlib import Path
from typing import Any, NoReturn

import datasets
import torch
from torch.utils.tensorboard import SummaryWriter
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, get_scheduler

from job import checkpoint, divergence, durable, interrupt
from job.batches import Rows, epoch_steps, micro_batches
from job.config import TrainSection
from job.errors import ConfigError, Interrupted, OutOfMemory
from job.layers import exchange
from job.loss import choose
from job.machine import Machine, is_out_of_memory
from job.progress import Progress

log = logging.getLogger(__name__)


def train(
    section: TrainSection, seed: int, rows: datasets.DatasetDict, base: Path, run: Path, machine: Machine
) -> dict[str, Any]:
    """Fine-tune the model in `base` into the folder `run/model`.

    Args:
        rows: "train" and "test", each {"input_ids", "labels"}; an empty test set is not measured.
        run: the run folder, for checkpoints, TensorBoard's event files and the model.

    Returns:
        The history (loss every `logging_steps`, test loss every epoch), steps, tokens and seconds.

    Raises:
        Interrupted: a signal came; the checkpoint of the last step is complete.
        OutOfMemory: not even one row fits.
        Diverged: the loss or the gradient is no number, or the loss exploded.
        ConfigError: the run has fewer steps than its warm-up.
    """
    total_steps = count_steps(section, len(rows["train"]), machine.processes)
    trainer = _Training(section, seed, rows, base, run, machine, total_steps)
    trainer.resume()
    with interrupt.deferred() as stop_requested:
        try:
            trainer.loop(stop_requested)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            raise OutOfMemory(
                "out of memory for the optimizer, which needs 16 bytes a parameter with weights and gradients; take a "
                "smaller model.base, or run on a machine with more memory"
            ) from None
        finally:
            trainer.close()
        facts = trainer.facts()
        if machine.rank == 0:
            _save(trainer.model, base, run, facts)
        machine.wait()
    return facts


def count_steps(section: TrainSection, rows: int, processes: int) -> int:
    """Optimizer steps of the whole training."""
    total = math.ceil(rows / rows_per_step(section, processes)) * section.epochs
    if section.warmup_steps >= total:
        raise ConfigError(
            f"train.warmup_steps: found {section.warmup_steps}, and the whole training has {total} steps; lower it"
        )
    return total


def rows_per_step(section: TrainSection, processes: int) -> int:
    return section.batch_size * section.gradient_accumulation_steps * processes


def rehearse(section: TrainSection, rows: datasets.Dataset, base: Path, machine: Machine) -> dict[str, float]:
    """One real optimizer step on the longest rows: does it fit, and how long does it take?

    Returns:
        Seconds for a token (of the second of two steps) and the peak memory in GiB.
    """
    lengths = [len(ids) for ids in rows["input_ids"]]
    order = sorted(range(len(rows)), key=lengths.__getitem__, reverse=True)
    batch = rows.select(order[: section.batch_size])
    training = _Training(section, 0, datasets.DatasetDict(train=batch, test=batch), base, Path(), machine, 1)
    for _ in range(2):
        started = time.monotonic()
        training.step(list(range(len(batch))))
    tokens = sum(map(len, batch["input_ids"]))
    return {"seconds_per_token": (time.monotonic() - started) / tokens, "peak_gib": _peak_gib(machine)}


class _Training:
    """What changes while training: model, optimizer, step and history."""

    def __init__(
        self,
        section: TrainSection,
        seed: int,
        rows: datasets.DatasetDict,
        base: Path,
        run: Path,
        machine: Machine,
        total_steps: int,
    ) -> None:
        self.section, self.seed, self.machine, self.run, self.total_steps = section, seed, machine, run, total_steps
        self.source = rows["train"]  # asked where its rows stood when training diverges
        self.model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
        self.model.to(machine.device).train()  # type: ignore[arg-type]
        exchange(self.model, machine.device)
        # attention with dropout, for which a CPU has no fused kernel, is then not computed in fp32 under autocast
        torch.backends.cuda.allow_fp16_bf16_reduction_math_sdp(True)  # of every device, whatever its name
        pad_id = int(self.model.generation_config.pad_token_id)
        self.rows, self.test = Rows(rows["train"], pad_id), Rows(rows["test"], pad_id)
        self.loss = choose(self.model, *self.rows.batch(self._probe(), machine.device))
        self.optimizer = torch.optim.AdamW(self._groups(), lr=section.learning_rate, fused=True)
        self.scheduler = get_scheduler(section.lr_scheduler, self.optimizer, section.warmup_steps, total_steps)
        self.scaler = torch.amp.GradScaler(machine.device.type, enabled=machine.precision == "fp16")
        self.micro_size = section.batch_size
        self.done = 0
        self.first_loss: float | None = None
        self.seconds = 0.0
        self.window = [0.0, 0.0]  # loss and trained tokens since the last logged point
        self.history: list[dict[str, float]] = []
        self.writer: SummaryWriter | None = None

    def loop(self, stop_requested: Any) -> None:
        """Every step that is still to do."""
        lengths = self.rows.lengths
        size = rows_per_step(self.section, self.machine.processes)
        per_epoch = math.ceil(len(lengths) / size)
        writer = self.writer = self._writer()
        if self._test_when_due(writer, per_epoch, stop_requested):  # an interruption may have left it to do
            self._stop()
        with Progress("train", self.total_steps, "step", self.done) as progress:
            while self.done < self.total_steps:
                epoch, position = divmod(self.done, per_epoch)
                for step in epoch_steps(lengths, size, self.seed, epoch)[position:]:
                    started = time.monotonic()
                    loss, norm, stop = self.step(step, stop_requested())
                    elapsed = time.monotonic() - started
                    self.seconds += elapsed
                    tokens = sum(lengths[row] for row in step)
                    progress.update(1, loss=f"{loss:.3f}", speed=f"{tokens / elapsed:.0f} tokens/s")
                    if self.done % self.section.logging_steps == 0 or self.done == self.total_steps:
                        self._log(writer, "train_loss", self.window[0] / self.window[1], grad_norm=norm)
                        self.window = [0.0, 0.0]
                    if stop or self._test_when_due(writer, per_epoch, stop_requested):
                        self._stop()
                    if self.done % self.section.save_steps == 0 and self.done < self.total_steps:
                        self._checkpoint()

    def _stop(self) -> NoReturn:
        self._checkpoint()
        raise Interrupted(
            f"stopped at step {self.done} of {self.total_steps}, checkpoint complete; "
            "run the same command again to go on"
        )

    def close(self) -> None:
        """Write down what TensorBoard has not yet written."""
        if self.writer is not None:
            self.writer.close()

    def step(self, rows: list[int], stop: bool = False) -> tuple[float, float, bool]:
        """One optimizer step over rows of the training set.

        Returns:
            The mean loss over the trained tokens of all processes, the gradient's norm before clipping, and
            whether any process wants to stop.
        """
        total = self._accumulate(rows)
        tokens = sum(self.rows.trained[row] for row in rows)
        self._share_gradients()
        self.scaler.unscale_(self.optimizer)
        norm = self._clip()
        # the one place where a step waits for a GPU
        summed, stopping = self.machine.sum(torch.stack([total.double(), total.new_tensor(stop).double()])).tolist()
        loss = summed / tokens
        self._require_sane(loss, float(norm), rows)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.scheduler.step()
        self.optimizer.zero_grad()
        self.done += 1
        self.window = [self.window[0] + summed, self.window[1] + tokens]
        return loss, float(norm), bool(stopping)

    def _clip(self) -> torch.Tensor:
        """Bound the norm of all gradients together; what it was before."""
        weights = list(self.model.parameters())
        norm = torch.nn.utils.get_total_norm([weight.grad for weight in weights if weight.grad is not None])
        if self.scaler.is_enabled():
            torch.nn.utils.clip_grads_with_norm_(weights, self.section.max_grad_norm, norm)
        else:  # the fused optimizer divides as it goes, which saves reading and writing all gradients once more
            scale = (norm / self.section.max_grad_norm).clamp(min=1)
            self.optimizer.grad_scale = scale  # type: ignore[attr-defined]
        return norm

    def _require_sane(self, loss: float, norm: float, rows: list[int]) -> None:
        """Before the optimizer takes the step, so that no such gradient ever reaches a checkpoint."""
        self.first_loss = loss if self.first_loss is None else self.first_loss
        norm = norm if self.machine.precision != "fp16" else 0.0  # there the scaler leaves out what overflows
        found = divergence.symptom(loss, norm, self.first_loss, self.model.config.get_text_config().vocab_size)
        if found is not None:
            kept = checkpoint.name_of_newest(self.run / "checkpoints")
            raise divergence.diverged(found, self.done + 1, self.source.select(rows)["where"][:], kept)

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
                if not is_out_of_memory(error):
                    raise
            self.optimizer.zero_grad()
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

    def _test_when_due(self, writer: SummaryWriter | None, per_epoch: int, stop_requested: Any) -> bool:
        """The test loss at the end of an epoch; True if a signal broke it off, and then it is due after the resume."""
        if self.done == 0 or self.done % per_epoch or not len(self.test):
            return False
        if any("test_loss" in point and point["step"] == self.done for point in self.history[-2:]):
            return False
        loss = self.test_loss(stop_requested)
        if loss is not None:
            self._log(writer, "test_loss", loss)
        return loss is None

    @torch.no_grad()
    def test_loss(self, stop_requested: Any) -> float | None:
        """Mean loss over the trained tokens of the test rows, shared out among the processes; None: broken off."""
        self.model.eval()
        sums = torch.zeros(3, dtype=torch.float64, device=self.machine.device)
        everything = sorted(range(len(self.test)), key=self.test.lengths.__getitem__)
        for part in micro_batches(everything, self.micro_size, self.machine.rank, self.machine.processes):
            if stop_requested():
                sums[2] = 1
                break
            with self.machine.autocast():
                loss = self.loss.measure(*self.test.batch(part, self.machine.device))
            sums[:2] += torch.stack([loss.total.double(), loss.tokens.double()])
        self.model.train()
        total, tokens, stopped = self.machine.sum(sums).tolist()
        return None if stopped else float(total / tokens)

    def resume(self) -> None:
        """Go on from the newest complete checkpoint, if there is one."""
        found = checkpoint.newest(self.run / "checkpoints")
        if found is None:
            return
        tensors, state = found
        self.model.load_state_dict(tensors["model"])
        self.optimizer.load_state_dict(tensors["optimizer"])
        self.scheduler.load_state_dict(tensors["scheduler"])
        self.scaler.load_state_dict(tensors["scaler"])
        self.done, self.seconds, self.micro_size = state["step"], state["seconds"], state["micro_size"]
        self.window, self.history = state["window"], state["history"]
        self.first_loss = state["first_loss"]
        log.info(f"train: going on from the checkpoint of step {self.done} of {self.total_steps}")

    def facts(self) -> dict[str, Any]:
        tokens = sum(self.rows.lengths) * self.section.epochs
        return {
            "history": self.history,
            "steps": self.total_steps,
            "rows_per_step": rows_per_step(self.section, self.machine.processes),
            "forward_rows": self.micro_size,
            "tokens": tokens,
            "trained_tokens": sum(self.rows.trained) * self.section.epochs,
            "seconds": round(self.seconds, 1),
            "tokens_per_second": round(tokens / self.seconds, 1),
            "precision": self.machine.precision,
            "device": str(self.machine.device.type),
            "processes": self.machine.processes,
            "answer_only_logits": self.loss.answer_only,
            "peak_gib": _peak_gib(self.machine),
        }

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

    def _checkpoint(self) -> None:
        if self.writer is not None:
            self.writer.flush()
        if self.machine.rank == 0:
            tensors = {
                "model": self.model.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "scheduler": self.scheduler.state_dict(),
                "scaler": self.scaler.state_dict(),
            }
            state = {
                "seconds": self.seconds,
                "micro_size": self.micro_size,
                "window": self.window,
                "history": self.history,
                "first_loss": self.first_loss,
            }
            checkpoint.save(self.run / "checkpoints", self.done, tensors, state, self.section.save_total_limit)
        self.machine.wait()

    def _writer(self) -> SummaryWriter | None:
        if self.machine.rank > 0:
            return None
        if self.section.wandb_project is not None:
            import wandb  # type: ignore[import-not-found,unused-ignore]

            # sends along whatever TensorBoard is given
            wandb.init(project=self.section.wandb_project, sync_tensorboard=True)
        return SummaryWriter(str(self.run / "tensorboard"), purge_step=self.done + 1)

    def _log(self, writer: SummaryWriter | None, name: str, value: float, **more: float) -> None:
        rate = self.optimizer.param_groups[0]["lr"]
        self.history.append({"step": self.done, name: value, "learning_rate": rate, **more})
        if writer is not None:
            for key, number in {name: value, "learning_rate": rate, **more}.items():
                writer.add_scalar(key, number, self.done)


def _save(model: PreTrainedModel, base: Path, run: Path, facts: dict[str, Any]) -> None:
    """Leave the tuned model as `run/model`, all or nothing."""
    partial = run / "model.partial"
    shutil.rmtree(partial, ignore_errors=True)
    stored: str = json.loads((base / "config.json").read_text()).get("dtype") or "float32"
    model.to(getattr(torch, stored)).save_pretrained(partial)
    AutoTokenizer.from_pretrained(base, padding_side="left").save_pretrained(partial)
    for file in partial.iterdir():
        file.chmod(0o644)  # safetensors writes for its owner alone, and a server may be another user
    durable.write(run / "training.json", json.dumps(facts, indent=2))
    durable.place(partial, run / "model")


def _peak_gib(machine: Machine) -> float:
    if machine.device.type == "cuda":
        return round(torch.cuda.max_memory_allocated(machine.device) / 2**30, 2)
    import resource

    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2)  # KiB on Linux
