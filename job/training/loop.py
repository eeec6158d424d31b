"""Loop: every step of a training, with its loss curve, its test losses and its checkpoints.

Random numbers depend on (seed, epoch) or (seed, step, rank) alone, and the learning rate on the step. So a resumed
training has the row order and the dropout of an unbroken one, and a checkpoint needs no generator's state.

It knows epochs and when to stop. It does not know how a step is computed, nor which rows it takes.
"""

import logging
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import datasets
from torch.utils.tensorboard import SummaryWriter

from job.config.schema import TrainSection
from job.errors import ConfigError, Interrupted
from job.run import checkpoint
from job.run.facts import TrainingFacts
from job.run.machine import Machine
from job.run.progress import Progress
from job.training import divergence, geometry
from job.training.best import Best
from job.training.course import Course
from job.training.geometry import rows_per_step
from job.training.next_token import NextToken
from job.training.objective import Load
from job.training.step import Learner, Outcome

log = logging.getLogger(__name__)


class Training:
    """The learner, and what is counted beside it: seconds, the loss curve, trained rows and tokens."""

    def __init__(
        self,
        section: TrainSection,
        seed: int,
        rows: datasets.DatasetDict,
        base: Path,
        run: Path,
        machine: Machine,
        total_steps: int,
        objective: Load = NextToken,
    ) -> None:
        """Load the model; the arguments are those of `train`, and `objective` is the learner's."""
        self.section, self.seed, self.machine, self.run, self.total_steps = section, seed, machine, run, total_steps
        self.checkpoints = run / "checkpoints"
        self.learner = Learner(section, seed, rows["train"], base, self.checkpoints, machine, total_steps, objective)
        self.objective, self.rows, self.test_rows = self.learner.objective, self.learner.rows, len(rows["test"])
        self.objective.load_test(rows["test"])
        self.geometry = geometry.describe(section, seed, self.rows, machine)
        self.per_epoch = self.geometry.steps_per_epoch
        self.course = Course(self.rows, self.geometry.rows_per_step, self.per_epoch, seed)
        self.best = Best(section, self.checkpoints, machine, tested=self.test_rows > 0)
        self.seconds = 0.0
        self.trained_rows = 0
        self.trained_tokens = 0
        self.window = [0.0, 0]  # loss and trained tokens since the last logged point
        self.history: list[dict[str, float]] = []
        self.writer: SummaryWriter | None = None
        self.saved_at = time.monotonic()
        self._written = (-1, 0)  # steps taken and skipped when the newest checkpoint was written

    def loop(self, stop_requested: Callable[[], bool]) -> None:
        """Take every step that is left, or as many as `train.patience` allows.

        Args:
            stop_requested: asked at each step and test batch; True ends the training after the step.

        Raises:
            Interrupted: a stop was requested here or in another process; the checkpoint is complete.
            Diverged: training stopped learning, or the test loss is no number.
            OutOfMemory: a single row does not fit.
        """
        learner = self.learner
        self.writer = self._writer()
        self.saved_at = time.monotonic()
        self.best.start()
        if self._test_when_due(stop_requested):  # an interruption may have come before it
            self._stop()
        with Progress("train", self.total_steps, "step", learner.done) as progress:
            while learner.done < self.total_steps and not self.best.waited_enough:
                rows = self.course.next_rows(learner.done)
                started = time.monotonic()
                outcome = learner.step(rows, stop_requested(), self._minutes_have_passed())
                elapsed = time.monotonic() - started
                self.seconds += elapsed
                if outcome.taken:
                    self._count(rows, outcome)
                    speed = f"{sum(self.rows.lengths[row] for row in rows) / elapsed:.0f} tokens/s"
                    progress.update(1, loss=f"{outcome.summed / outcome.tokens:.3f}", speed=speed)
                if outcome.stop or (outcome.taken and self._test_when_due(stop_requested)):
                    self._stop()
                if outcome.taken and self._save_due(outcome):
                    self._checkpoint()
        self._require_all_rows()
        if self._stopped_early and self.machine.rank == 0:
            log.info(
                f"train: {self.section.patience} measurements in a row without a lower test loss than "
                f"{self.best.loss:.4g}, that of step {self.best.step}; ended at step {learner.done} of "
                f"{self.total_steps}"
            )

    def close(self) -> None:
        """Flush TensorBoard's file, and free what only steps need."""
        self.objective.close()
        if self.writer is not None:
            self.writer.close()

    def test_loss(self, stop_requested: Callable[[], bool]) -> float | None:
        """Measure the test rows, each process a part of them.

        Returns:
            The mean loss in nats; None if a process was asked to stop.
        """
        sums = self.machine.sum(self.objective.test(self.learner.micro_size, stop_requested))
        total, terms, stopped = sums.tolist()
        return None if stopped else float(total / terms)

    def resume(self) -> None:
        """Go on from the newest complete checkpoint, if there is one.

        Raises:
            ConfigError: it cannot go on here exactly, or the processes do not see the same checkpoint.
        """
        newest = checkpoint.load_newest(self.checkpoints)
        step = None if newest is None else newest[1]["step"]
        everywhere = self.machine.gather((step, self.geometry.data))
        if len(set(everywhere)) > 1:
            steps = ", ".join(f"process {rank}: {step}" for rank, (step, _) in enumerate(everywhere))
            raise ConfigError(
                f"output: the processes do not see the same checkpoint and rows (step of the checkpoint: {steps}); all "
                f"nodes must share the run folder {self.run}"
            )
        if newest is not None:
            self._restore(*newest)

    def facts(self, encoded: dict[str, str] | None) -> TrainingFacts:
        """Give what training.json holds; `encoded` are the hashes of the rows, None where another process writes."""
        done, best = self.learner.done, self.best
        tokens = self.course.amount(done).tokens
        kept = done if best.step is None else best.step
        return TrainingFacts(
            history=self.history,
            steps=done,
            skipped_steps=self.learner.skipped,
            rows_per_step=rows_per_step(self.section, self.machine.processes),
            forward_rows=self.learner.micro_size,
            tokens=tokens,
            trained_tokens=self.trained_tokens,
            seconds=round(self.seconds, 1),
            tokens_per_second=round(tokens / self.seconds, 1),
            precision=self.machine.precision,
            device=str(self.machine.device.type),
            processes=self.machine.processes,
            answer_only_logits=self.objective.answer_only,
            peak_gib=self.machine.peak_gib(),
            encoded=encoded,
            kept_step=kept,
            kept_epoch=math.ceil(kept / self.per_epoch),
            kept_loss=best.loss,
            stopped_early=self._stopped_early,
        )

    def _count(self, rows: list[int], outcome: Outcome) -> None:
        """Count a step that was taken, and log the loss when it is due."""
        self.trained_rows += len(rows)
        self.trained_tokens += outcome.tokens
        self.window = [self.window[0] + outcome.summed, self.window[1] + outcome.tokens]
        done = self.learner.done
        if done % self.section.logging_steps == 0 or done == self.total_steps:
            self._log("train_loss", self.window[0] / self.window[1], grad_norm=outcome.norm)
            self.window = [0.0, 0]

    @property
    def _stopped_early(self) -> bool:
        return self.learner.done < self.total_steps and self.best.waited_enough

    def _require_all_rows(self) -> None:
        """Raise ConfigError unless each row was trained in each epoch that the steps demand: else it is no model."""
        trained = (self.trained_rows, self.trained_tokens)
        expected = self.course.amount(self.learner.done)[:2]
        if trained != expected:
            raise ConfigError(
                f"output: the training ended after {trained[0]} rows and {trained[1]} trained tokens, expected "
                f"{expected[0]} and {expected[1]}; its checkpoints do not belong to these rows, and no model was "
                f"saved; remove {self.checkpoints} to train from the start"
            )

    def _minutes_have_passed(self) -> bool:
        """Tell whether a checkpoint is due by the clock; process 0 decides for all."""
        return self.machine.rank == 0 and time.monotonic() - self.saved_at >= self.section.save_minutes * 60

    def _save_due(self, outcome: Outcome) -> bool:
        done = self.learner.done
        ended = done == self.total_steps or self.best.waited_enough
        return not ended and (outcome.save or done % self.section.save_steps == 0)

    def _stop(self) -> NoReturn:
        # a checkpoint that is there is not written again: a kill in between would leave none
        if self._written != (self.learner.done, self.learner.skipped):
            self._checkpoint()
        raise Interrupted(
            f"stopped at step {self.learner.done} of {self.total_steps}, checkpoint complete; "
            "run the same command again to continue"
        )

    def _test_when_due(self, stop_requested: Callable[[], bool]) -> bool:
        """Measure the test loss where it is due; True if a stop came first: it is then due after the resume."""
        done, every = self.learner.done, self.section.test_steps
        between = every is not None and done % every == 0
        if done == 0 or not self.test_rows or (done % self.per_epoch and not between):
            return False
        if any("test_loss" in point and point["step"] == done for point in self.history[-2:]):
            return False
        loss = self.test_loss(stop_requested)
        if loss is None:
            return True
        if not math.isfinite(loss):
            kept = checkpoint.describe_newest(self.checkpoints)
            raise divergence.unmeasurable(done, loss, self.machine.precision, kept)
        self._log("test_loss", loss)
        self.best.consider(self.learner.model, done, loss, last=done == self.total_steps)
        return False

    def _restore(self, tensors: dict[str, Any], state: dict[str, Any]) -> None:
        then, now = geometry.read(state.get("geometry"), state["step"], self.checkpoints), self.geometry
        learner = self.learner
        learner.done = geometry.position(then, now, state["step"], self.checkpoints)
        learner.load(tensors)
        learner.first_loss, learner.skipped = state["first_loss"], state["skipped"]
        learner.skipped_in_a_row = state["skipped_in_a_row"]
        self.seconds, self.window = state["seconds"], state["window"]
        self.trained_rows, self.trained_tokens = state["trained_rows"], state["trained_tokens"]
        self.history = [
            {**point, "step": geometry.on_new_steps(then, now, int(point["step"]))} for point in state["history"]
        ]
        self.best.restore(state["best"], lambda step: geometry.on_new_steps(then, now, step))
        log.info(f"train: continuing from the checkpoint of step {state['step']} of {then.total_steps}")
        if geometry.same_setup(then, now):
            learner.micro_size = state["forward_rows"][self.machine.rank]
            self._written = learner.done, learner.skipped
            return
        # rows that did not fit there may fit here; if not, they are halved again
        course = "the same rows in the same steps"
        if then.total_steps != now.total_steps:
            course = f"from the end of its last epoch on, which is step {learner.done} of {now.total_steps} here"
        log.info(
            f"train: it was written in another setup ({geometry.changes(then, now)}); {course}, and the last bits of "
            "the weights may differ from those of an unbroken run"
        )

    def _checkpoint(self) -> None:
        if self.writer is not None:
            self.writer.flush()
        forward_rows = self.machine.gather(self.learner.micro_size)
        if self.machine.rank == 0:
            state = {
                "geometry": self.geometry.as_json(),
                "seconds": self.seconds,
                "forward_rows": forward_rows,
                "window": self.window,
                "history": self.history,
                "first_loss": self.learner.first_loss,
                "skipped": self.learner.skipped,
                "skipped_in_a_row": self.learner.skipped_in_a_row,
                "trained_rows": self.trained_rows,
                "trained_tokens": self.trained_tokens,
                "best": self.best.state(),
            }
            done, limit = self.learner.done, self.section.save_total_limit
            checkpoint.save(self.checkpoints, done, self.learner.tensors(), state, limit, self.best.file)
        self._written = self.learner.done, self.learner.skipped
        self.machine.wait()
        self.saved_at = time.monotonic()

    def _writer(self) -> SummaryWriter | None:
        if self.machine.rank > 0:
            return None
        if self.section.wandb_project is not None:
            import wandb  # type: ignore[import-not-found,unused-ignore]

            # it sends what TensorBoard is given
            wandb.init(project=self.section.wandb_project, sync_tensorboard=True)
        return SummaryWriter(str(self.run / "tensorboard"), purge_step=self.learner.done + 1)

    def _log(self, name: str, value: float, **more: float) -> None:
        values = {name: value, "learning_rate": self.learner.rate, **more}
        self.history.append({"step": self.learner.done, **values})
        if self.writer is not None:
            for key, number in values.items():
                self.writer.add_scalar(key, number, self.learner.done)
