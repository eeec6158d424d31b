"""Geometry: what decides the course of a training, and whether a checkpoint can be resumed on another machine.

The course is which rows go into which step, and with what learning rate. It depends on the rows, the seed, the config
and the number of rows in a step, and not on how processes, forward passes and precision divide a step. So a training
with the same number of rows in a step can be resumed anywhere. With another number it can be resumed at the end of an
epoch only: within an epoch some rows would be trained twice and others never.

It knows numbers and the config's keys. It knows neither tensors nor files.
"""

import math
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from job.config.schema import TrainSection
from job.errors import ConfigError
from job.run.machine import Machine
from job.training.objective import EncodedRows

_RECIPE = (
    "epochs", "learning_rate", "lr_scheduler", "warmup_steps", "weight_decay", "max_grad_norm",
    "keep", "test_steps", "patience",  # they decide which step's weights become the model
)  # fmt: skip


def rows_per_step(section: TrainSection, processes: int) -> int:
    """Count the rows of an optimizer step over all processes."""
    return section.batch_size * section.gradient_accumulation_steps * processes


@dataclass(frozen=True)
class Geometry:
    """The geometry of a training; a checkpoint keeps it as JSON."""

    rows: int
    data: str
    """Hash of the encoded rows."""
    recipe: dict[str, Any]
    """The config's keys that decide the weights, with their values."""
    batch_size: int
    accumulation: int
    processes: int
    precision: str
    device: str

    @property
    def rows_per_step(self) -> int:
        """Rows of an optimizer step over all processes."""
        return self.batch_size * self.accumulation * self.processes

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps of an epoch; the last may have fewer rows."""
        return math.ceil(self.rows / self.rows_per_step)

    @property
    def total_steps(self) -> int:
        """Optimizer steps of the whole training."""
        return self.steps_per_epoch * int(self.recipe["train.epochs"])

    def as_json(self) -> dict[str, Any]:
        """Give the fields as a checkpoint keeps them; `read` takes them."""
        return asdict(self)


def describe(section: TrainSection, seed: int, rows: EncodedRows, machine: Machine) -> Geometry:
    """Describe a training with this config and seed, on these rows, on this machine."""
    recipe = {f"train.{key}": getattr(section, key) for key in _RECIPE} | {"seed": seed}
    if section.word_dropout:  # earlier checkpoints do not record it
        recipe["train.word_dropout"] = section.word_dropout
    return Geometry(
        rows=len(rows),
        data=rows.fingerprint(),
        recipe=recipe,
        batch_size=section.batch_size,
        accumulation=section.gradient_accumulation_steps,
        processes=machine.processes,
        precision=machine.precision,
        device=machine.name,
    )


def read(recorded: Any, step: int, checkpoints: Path) -> Geometry:
    """Read the geometry that a checkpoint of `step` in the folder `checkpoints` keeps as JSON.

    Raises:
        ConfigError: another version of the job wrote it.
    """
    try:
        then = Geometry(**recorded)
    except TypeError:
        raise _other_version("its rows, nor how many of them a step has", step, checkpoints) from None
    missing = [f"train.{key}" for key in _RECIPE if f"train.{key}" not in then.recipe]
    if missing:
        raise _other_version(", ".join(missing), step, checkpoints)
    return then


def position(then: Geometry, now: Geometry, done: int, checkpoints: Path) -> int:
    """Compute the step at which `now` goes on after `then` has taken `done` steps.

    Raises:
        ConfigError: the course of rows or the recipe would be another; the message says what to do.
    """
    _require_same_recipe(then, now, checkpoints)
    if then.rows_per_step == now.rows_per_step:
        return done
    epochs, rest = divmod(done, then.steps_per_epoch)
    if rest:
        raise ConfigError(
            f"output: the checkpoint of step {done} was written with {_product(then)}, and this run would use "
            f"{_product(now)}; within an epoch a run can continue only with the same number. Run it with "
            f"{' or with '.join(_remedies(then, now))}, or {_start_over(checkpoints)}"
        )
    return epochs * now.steps_per_epoch


def on_new_steps(then: Geometry, now: Geometry, step: int) -> int:
    """Convert a step of `then` to steps of `now`: exact at the end of an epoch, the nearest one elsewhere."""
    return (step * now.steps_per_epoch + then.steps_per_epoch // 2) // then.steps_per_epoch


def changes(then: Geometry, now: Geometry) -> str:
    """List what differs between two machines with the same course, for the log; empty if nothing does."""
    names = {"accumulation": "gradient_accumulation_steps"}
    pairs = {key: (value, getattr(now, key)) for key, value in asdict(then).items() if key != "recipe"}
    return ", ".join(f"{names.get(key, key)} {old} -> {new}" for key, (old, new) in pairs.items() if old != new)


def same_setup(then: Geometry, now: Geometry) -> bool:
    """Tell whether a resumed training computes bit for bit what an unbroken one would."""
    return replace(then, recipe=now.recipe) == now


def _other_version(lacking: str, step: int, checkpoints: Path) -> ConfigError:
    return ConfigError(
        f"output: another version of Kickoff wrote the checkpoint of step {step}: it does not record {lacking}; "
        f"finish the run with that version, or {_start_over(checkpoints)}"
    )


def _require_same_recipe(then: Geometry, now: Geometry, checkpoints: Path) -> None:
    names = sorted(then.recipe.keys() | now.recipe.keys())
    changed = [
        f"{name} was {then.recipe.get(name)} and is {now.recipe.get(name)}"
        for name in names
        if then.recipe.get(name) != now.recipe.get(name)
    ]
    if changed:
        raise ConfigError(
            f"output: the checkpoint belongs to another training: {'; '.join(changed)}; undo the change, "
            f"or {_start_over(checkpoints)}"
        )
    if (then.rows, then.data) != (now.rows, now.data):
        counts = f"{then.rows} rows then, {now.rows} now" if then.rows != now.rows else f"{now.rows} rows, not the same"
        raise ConfigError(
            f"output: the checkpoint was trained on other encoded rows ({counts}); restore the run folder's `encoded`, "
            f"or {_start_over(checkpoints)}"
        )


def _product(of: Geometry) -> str:
    return (
        f"{of.processes} {'process' if of.processes == 1 else 'processes'} x train.batch_size {of.batch_size} x "
        f"train.gradient_accumulation_steps {of.accumulation} = {of.rows_per_step} rows in a step"
    )


def _remedies(then: Geometry, now: Geometry) -> list[str]:
    """List settings that give the checkpoint's number of rows in a step, the smallest change first."""
    wanted, remedies = then.rows_per_step, []
    share, left = divmod(wanted, now.processes)
    if left == 0:
        batch = max(size for size in range(1, min(now.batch_size, share) + 1) if share % size == 0)
        size = "" if batch == now.batch_size else f"train.batch_size={batch} "
        remedies.append(f"{size}train.gradient_accumulation_steps={share // batch}")
    processes, left = divmod(wanted, now.batch_size * now.accumulation)
    if left == 0:
        remedies.append(f"{processes} {'process' if processes == 1 else 'processes'}")
    return remedies or [
        f"{then.processes} processes, train.batch_size={then.batch_size} and "
        f"train.gradient_accumulation_steps={then.accumulation}"
    ]


def _start_over(checkpoints: Path) -> str:
    return f"choose another output, or remove {checkpoints} to train from the start"
