"""Train: full fine-tuning of a model on encoded rows.

It reads the base folder and the encoded rows and writes the folder of the tuned model, complete or not at all.
Meanwhile it writes checkpoints, from which the next run goes on. It does not know how a step or the loop of steps works
(step.py, loop.py).
"""

import math
import shutil
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import datasets

from job.config.schema import Config, TrainSection
from job.errors import ConfigError
from job.run import durable, interrupt, out_of_memory
from job.run.fact_files import write
from job.run.facts import TrainingFacts
from job.run.machine import Machine
from job.training import origin
from job.training.contrastive import Contrastive
from job.training.geometry import rows_per_step
from job.training.loop import Training
from job.training.next_token import NextToken
from job.training.objective import Load, Objective
from job.training.step import Learner

_NEEDS = "training needs 16 bytes per parameter for weights, gradients and optimizer"
_REMEDY = "use a smaller model.base, or run on a machine with more memory"


def objective(config: Config) -> Load:
    """Choose what is learned: a generator's next tokens, or a retriever's vectors."""
    return NextToken if config.model.kind == "generator" else partial(Contrastive, retriever=config.retriever)


def train_run(config: Config, rows: datasets.DatasetDict, run: Path, machine: Machine) -> TrainingFacts:
    """Train the model of a run folder, whose config has a value for every key; as `train`."""
    section = config.settled_train()
    return train(section, config.seed, rows, run / "base", run, machine, objective(config))


def train(
    section: TrainSection,
    seed: int,
    rows: datasets.DatasetDict,
    base: Path,
    run: Path,
    machine: Machine,
    load: Load = NextToken,
) -> TrainingFacts:
    """Fine-tune the model in `base` into the folder `run/model`.

    Args:
        section: the config's.
        seed: of row order and dropout.
        rows: "train" and "test", each {"input_ids", "labels", "answer", "where"}; an empty test set is not measured.
        base: the folder of the model to train, with its tokenizer.
        run: the run folder, for checkpoints, TensorBoard's event files and the model.
        machine: what to compute with.
        load: loads the objective, as `objective` chooses it.

    Returns:
        The facts of training.json: the history (loss every `logging_steps`, test loss every epoch and every
        `test_steps`), steps, tokens, seconds, the step whose weights are kept, and more.

    Raises:
        Interrupted: a signal came; the checkpoint of the last step is complete.
        OutOfMemory: a single row does not fit, or the optimizer does not.
        Diverged: the loss or the gradient is no number, the loss exploded, or fp16 overflows again and again.
        ConfigError: the run has fewer steps than its warm-up, or a checkpoint cannot go on here.
        KickoffError: the weights that are to be kept are gone or damaged.
    """
    total_steps = count_steps(section, len(rows["train"]), machine.processes)
    training = Training(section, seed, rows, base, run, machine, total_steps, load)
    with out_of_memory.convert_errors(f"while the checkpoint was loaded; {_NEEDS}", _REMEDY):
        training.resume()
    with interrupt.defer() as stop_requested:
        try:
            with out_of_memory.convert_errors(f"while training: {_NEEDS}", _REMEDY):
                training.loop(stop_requested)
        finally:
            training.close()
        facts = training.facts(origin.hash_rows(rows) if machine.rank == 0 else None)
        if machine.rank == 0:
            with out_of_memory.convert_errors(
                "while the model was saved", "run the same command on a machine with more memory"
            ):
                training.best.load_into(training.learner.model, training.learner.done)
                _save(training.objective, run, facts)
        machine.wait()
    return facts


def count_steps(section: TrainSection, rows: int, processes: int) -> int:
    """Count the optimizer steps of the whole training.

    Raises:
        ConfigError: the warm-up is as long as the training.
    """
    total = math.ceil(rows / rows_per_step(section, processes)) * section.epochs
    if section.warmup_steps >= total:
        raise ConfigError(
            f"train.warmup_steps: found {section.warmup_steps}, and the whole training has {total} steps; lower it"
        )
    return total


@dataclass(frozen=True)
class Rehearsal:
    """What one optimizer step took."""

    seconds_per_token: float
    peak_gib: float


def rehearse(
    section: TrainSection, rows: datasets.Dataset, base: Path, machine: Machine, load: Load = NextToken
) -> Rehearsal:
    """Take two real optimizer steps on the longest rows, to see whether they fit and how long they take.

    Returns:
        The second step's time, and the peak memory.

    Raises:
        OutOfMemory: as `train` does.
    """
    lengths = [len(ids) for ids in rows["input_ids"]]
    order = sorted(range(len(rows)), key=lengths.__getitem__, reverse=True)
    batch = rows.select(order[: section.batch_size * machine.processes])
    learner = Learner(section, 0, batch, base, Path(), machine, 1, load)
    with out_of_memory.convert_errors(f"at the longest rows: {_NEEDS}", _REMEDY):
        for _ in range(2):
            started = time.monotonic()
            learner.step(list(range(len(batch))))
    tokens = sum(map(len, batch["input_ids"]))
    return Rehearsal((time.monotonic() - started) / tokens, machine.peak_gib())


def _save(trained: Objective, run: Path, facts: TrainingFacts) -> None:
    """Write the tuned model as `run/model`, complete or not at all."""
    unfinished = run / "model.partial"
    shutil.rmtree(unfinished, ignore_errors=True)
    trained.save(unfinished)
    for file in unfinished.rglob("*"):
        # safetensors writes for its owner alone, and a server may be another user
        file.chmod(0o755 if file.is_dir() else 0o644)
    write(run, facts)
    durable.replace(unfinished, run / "model")
