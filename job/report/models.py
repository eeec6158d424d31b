"""Models: what finished runs know about their models: metrics, answers, size, time and speed.

A run has two, the tuned model and the base model that it started from; runs of one base share it. The module does not
know how models are compared or shown.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from safetensors import SafetensorError, safe_open

from job.errors import ConfigError
from job.evaluation.answers import add_metrics
from job.model.ground import SETTINGS
from job.report import test_set
from job.report.rendering import METRICS
from job.report.test_set import Question
from job.run import fact_files
from job.run.facts import Answer, Answers, BaseFacts, Metrics, ModelMetrics, TrainingFacts

ANSWER_METRICS = ("f1", "exact_match", "ended")
"""The metrics that are computed from answers; the others are over all test rows."""


@dataclass(frozen=True)
class Model:
    """A model that was measured."""

    name: str
    """Of its run folder; a base model's own."""
    kind: str
    """Such as "generator" or "base model"."""
    base: BaseFacts | None
    """The base model that it is or started from; None if its folder is gone."""
    metrics: ModelMetrics
    answers: dict[Question, Answer]
    parameters: int | None
    """None if its own folder is gone, as the size."""
    size: int | None
    """Of all files of its folder, in bytes."""
    training_seconds: float | None
    """None for a base model."""
    answers_per_second: float | None
    """In its run; None if that was not recorded."""
    is_base: bool = False

    @property
    def origin(self) -> str:
        """The kind, and the base model's name and commit; of a base model only the commit, since its name is there."""
        commit = f"@{self.base.revision[:8]}" if self.base is not None and self.base.revision is not None else ""
        if self.is_base or self.base is None:
            return self.kind + commit
        return f"{self.kind} from {Path(self.base.base).name}{commit}"


@dataclass(frozen=True)
class Run:
    """A finished run: its models and its test set."""

    path: Path
    questions: list[Question]
    tuned: Model
    others: list[Model]
    """The base model, and BM25 beside a retriever, as far as they were measured."""


def read(run: Path, name: str) -> Run:
    """Read a finished run.

    Args:
        run: The run folder.
        name: What to call its tuned model.

    Raises:
        ConfigError: It is not finished, has no test rows, or one of its files is damaged.
    """
    metrics, answers = fact_files.read(run, Metrics), fact_files.read(run, Answers)
    if metrics is None or answers is None:
        raise ConfigError(f"{run} holds no finished run: expected the folder that `output` names, with metrics.json")
    questions = test_set.read(run, metrics, answers.model)
    assert metrics.model is not None  # noqa: S101 - without test rows, there is no test set
    facts, training = fact_files.read(run, BaseFacts), fact_files.read(run, TrainingFacts)
    tuned = _model(run / "model", name, _kind(run / "model"), facts, metrics.model, answers.model)
    tuned = replace(tuned, training_seconds=training.seconds if training is not None else None)
    others = []
    if metrics.base is not None:
        title = Path(facts.base).name if facts is not None else f"base of {name}"
        base = _model(run / "base", title, "base model", facts, metrics.base, answers.base)
        others.append(replace(base, is_base=True))
    if metrics.bm25 is not None:
        floor = _model(run / "bm25", "BM25", "words alone", None, metrics.bm25, answers.bm25)
        others.append(replace(floor, is_base=True))
    return Run(run, questions, tuned, others)


def on(model: Model, questions: Sequence[Question]) -> Model:
    """Return the model with only its answers to these questions, in their order, and the metrics of those."""
    answers = {question: model.answers[question] for question in questions}
    if len(answers) == len(model.answers):
        return replace(model, answers=answers)
    if answers:
        return replace(model, answers=answers, metrics=add_metrics(model.metrics, list(answers.values())))
    kept = {name: bounds for name, bounds in model.metrics.intervals.items() if name not in ANSWER_METRICS}
    metrics = replace(model.metrics, f1=None, exact_match=None, ended=None, answered_rows=None, intervals=kept)
    return replace(model, answers=answers, metrics=metrics)


def join(runs: Sequence[tuple[Run, Model]]) -> list[Model]:
    """Return the other models, once each where several runs measured the same one with the same results.

    Args:
        runs: Runs with their other models, reduced to the same questions.
    """
    joined: list[Model] = []
    for run, base in runs:
        if any(_is_same(base, other) for other in joined):
            continue
        taken = any(other.name == base.name for other in joined)
        joined.append(replace(base, name=f"{base.name} (of {run.tuned.name})") if taken else base)
    return joined


def _is_same(one: Model, other: Model) -> bool:
    """Return whether two models are one; figures may differ by rounding, as between batch sizes."""
    texts = [[answer.answer for answer in model.answers.values()] for model in (one, other)]
    if (one.name, one.base) != (other.name, other.base) or texts[0] != texts[1]:
        return False
    values = [(one.metrics.value(name), other.metrics.value(name)) for name in METRICS]
    return all(
        left == right if left is None or right is None else math.isclose(left, right, rel_tol=1e-3)
        for left, right in values
    )


def _model(
    folder: Path, name: str, kind: str, base: BaseFacts | None, metrics: ModelMetrics, answers: list[Answer]
) -> Model:
    rows, seconds = metrics.answered_rows, metrics.answer_seconds
    return Model(
        name=name,
        kind=kind,
        base=base,
        metrics=metrics,
        answers=test_set.by_question(answers),
        parameters=_parameters(folder),
        size=sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) if folder.is_dir() else None,
        training_seconds=None,
        answers_per_second=rows / seconds if rows and seconds else None,
    )


def _kind(folder: Path) -> str:
    """Return the kind of a published model, which its files tell."""
    if (folder / "retriever.json").exists():
        return "retriever"
    return "grounded generator" if (folder / SETTINGS).exists() else "generator"


def _parameters(folder: Path) -> int | None:
    """Count the parameters in a model's weights, without loading them; None if there are no weights."""
    files = sorted(folder.rglob("model*.safetensors"))
    total = 0
    for path in files:
        try:
            with safe_open(path, framework="np") as weights:
                total += sum(math.prod(weights.get_slice(name).get_shape()) for name in weights.keys())  # noqa: SIM118
        except (SafetensorError, OSError) as error:
            raise ConfigError(f"{path} is damaged ({error})") from None
    return total if files else None
