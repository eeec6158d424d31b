"""Trial: one training of a search, and what it is worth on the rows that were held back.

A trial is a training as `run` does it, with the config's schedule, batches and seed, so that the run's own training
with the same numbers does the same. Its folder is named after it: an interrupted trial goes on in the next call.

It does not know which trials are worth making.
"""

import gc
import logging
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

import datasets

from job.config.schema import Config, TrainSection
from job.errors import Diverged
from job.evaluation import evaluate, retrieval
from job.evaluation.answers import draw_rows
from job.evaluation.metrics import f1
from job.retrieval import retriever
from job.run.facts import TrainingFacts
from job.run.machine import Machine
from job.run.search_facts import Trial
from job.search.held_back import draw_part
from job.search.plan import Setting
from job.training import train

ANSWERED = 100
"""Held-back questions that are answered at most, drawn by seed."""
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Bench:
    """What all trials of a search have in common."""

    config: Config
    parts: datasets.DatasetDict
    """"train", of which a trial takes some or all, and "test", which measures it; neither has a test row of the run."""
    base: Path
    folder: Path
    """Of the search."""
    machine: Machine

    def section(self, setting: Setting) -> TrainSection:
        """Give the section train of a trial."""
        found = {"epochs": setting.epochs, "learning_rate": setting.learning_rate, "wandb_project": None}
        return TrainSection.model_validate({**self.config.train.model_dump(), **found})

    def model(self, setting: Setting) -> Path:
        """Name the folder of a trial's model."""
        name = f"rate-{setting.learning_rate:g}-epochs-{setting.epochs}-rows-{setting.rows}"
        return self.folder / name / "model"

    def train(self, setting: Setting) -> TrainingFacts:
        """Train the model of a trial, and leave it in `model(setting)`.

        Raises:
            Interrupted: a signal came; the next call goes on from the checkpoint.
            Diverged: the learning rate is too high.
            OutOfMemory: as in the run's training.
        """
        config, folder = self.config, self.model(setting).parent
        folder.mkdir(parents=True, exist_ok=True)
        rows = draw_part(self.parts["train"], setting.rows, config.seed)
        parts = datasets.DatasetDict(train=rows, test=self.parts["test"])
        try:
            return train.train(
                self.section(setting), config.seed, parts, self.base, folder, self.machine, train.objective(config)
            )
        finally:
            gc.collect()  # the next trial loads its own model and optimizer
            self.machine.free_cache()

    def answers_score(self, model: Path) -> float:
        """Measure the F1 of the answers to the held-back questions, by the generation config in the model's folder."""
        held = self.parts["test"]
        rows = held.select(draw_rows(len(held), ANSWERED, self.config.seed))
        given = evaluate.answer(model, rows["question"][:], self.machine)
        return sum(map(f1, given, rows["answer"][:])) / len(given)

    def rank_score(self, model: Path) -> float:
        """Measure the mean reciprocal rank of the held-back questions' own answers, among those of all rows here."""
        retriever.build(model, self.parts, self.config.retriever, [], self.machine)
        metrics, _ = retrieval.evaluate(model, self.parts["test"], [], self.machine)
        return float(metrics.mrr_at_10 or 0.0)

    def score(self, model: Path) -> float:
        """Measure what the search's metric says of a model."""
        return self.answers_score(model) if self.config.model.kind == "generator" else self.rank_score(model)

    def discard(self, setting: Setting) -> None:
        """Remove what is left of a trial."""
        shutil.rmtree(self.model(setting).parent, ignore_errors=True)


def run(bench: Bench, setting: Setting, scored: bool) -> Trial:
    """Train a trial and measure it; its model stays in its folder.

    Args:
        bench: of the search.
        setting: what to train.
        scored: whether to measure the score as well as the loss.

    Returns:
        The trial, the same in every process; without a loss if it diverged.

    Raises:
        Interrupted: a signal came; the next call goes on from the trial's checkpoint.
        OutOfMemory: as in the run's training.
    """
    started = time.monotonic()
    try:
        facts = bench.train(setting)
    except Diverged as error:
        if bench.machine.rank == 0:
            log.info(f"search: a learning rate of {setting.learning_rate:g} is too high: {error}")
        return bench.machine.gather(Trial(*setting, seconds=time.monotonic() - started))[0]
    trained = time.monotonic()
    # process 0 measures alone, as it does when a model is published; what it finds and how long it took hold for all
    score = bench.score(bench.model(setting)) if scored and bench.machine.rank == 0 else None
    ended = time.monotonic()
    trial = Trial(
        *setting,
        loss=facts.kept_loss,
        score=score,
        seconds=max(ended - started, facts.seconds + ended - trained),  # it may have begun in an earlier call
        training_seconds=facts.seconds,
        score_seconds=ended - trained,
    )
    return bench.machine.gather(trial)[0]
