"""Rendering: what report and card share: the templates, the metrics with their intervals, and answers side by side.

It knows how facts are shown, not where they come from.
"""

from dataclasses import dataclass
from pathlib import Path

import jinja2

from job.run.facts import Answers, Metrics, ModelMetrics, TrainingFacts

TEMPLATES = Path(__file__).parent / "templates"
METRICS = {
    "loss": "loss (lower is better)",
    "perplexity": "perplexity",
    "token_accuracy": "token accuracy",
    "f1": "token F1 of the answers",
    "exact_match": "exact match",
    "ended": "answers ended by themselves",
    "recall_at_1": "own answer ranked first",
    "recall_at_5": "own answer among the first five",
    "mrr_at_10": "mean reciprocal rank, to the tenth",
    "auroc": "known told from unknown (AUROC)",
    "answered": "test questions answered",
    "answered_rightly": "test questions answered rightly",
    "unknown_answered": "unknown questions answered, wrongly",
}
"""{metric: its name in tables}, in the order of the tables."""


def environment(autoescape: bool = False) -> jinja2.Environment:
    """Return the environment of the templates, in which an undefined name is an error.

    Args:
        autoescape: Escape for HTML; off for the card, which is Markdown.
    """
    loader = jinja2.FileSystemLoader(TEMPLATES)
    return jinja2.Environment(
        loader=loader,
        autoescape=autoescape,  # noqa: S701, off for the card, which is Markdown; the report is HTML and asks for it
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


@dataclass(frozen=True)
class MetricRow:
    """A row of the metrics table; each value with its interval and the interval's kind."""

    name: str
    tuned: str
    base: str
    bm25: str
    """Empty beside a generator."""


@dataclass(frozen=True)
class Sample:
    """A test question with the expected answer, the tuned model's and the base model's."""

    question: str
    expected: str
    answer: str
    f1: float
    base: str
    base_f1: float

    def texts(self) -> tuple[str, str, str, str]:
        """Return question, expected answer, tuned model's and base model's answer."""
        return self.question, self.expected, self.answer, self.base


def metric_rows(metrics: Metrics) -> list[MetricRow]:
    """Return the table of the metrics that were measured."""
    return [
        MetricRow(name, _with_interval(metrics.model, key), _with_interval(metrics.base, key), _floor(metrics, key))
        for key, name in METRICS.items()
        if metrics.model is not None and metrics.model.was_measured(key)
    ]


def _floor(metrics: Metrics, key: str) -> str:
    return _with_interval(metrics.bm25, key) if metrics.bm25 is not None and metrics.bm25.was_measured(key) else ""


def kept_weights(training: TrainingFacts) -> str | None:
    """Say which step's weights the model has; None if an earlier version of Kickoff trained it."""
    if training.kept_step is None:
        return None
    loss = "" if training.kept_loss is None else f", test loss {format_metric(training.kept_loss)}"
    return f"the weights of step {training.kept_step} (epoch {training.kept_epoch}){loss}"


def value_of(metrics: ModelMetrics | None, key: str) -> float | None:
    """Return a metric; None if the model was not measured or the value is not finite."""
    return metrics.value(key) if metrics is not None else None


def format_metric(value: float | None, digits: str = ".4g") -> str:
    """Format a metric; "no number" if it is None."""
    return "no number" if value is None else format(value, digits)


def _with_interval(metrics: ModelMetrics | None, key: str) -> str:
    between = interval(metrics, key)
    return format_metric(value_of(metrics, key)) + (f" ({between})" if between else "")


def bounds(metrics: ModelMetrics | None, key: str, digits: str = ".4g") -> str | None:
    """Format the bounds of a metric's interval, such as "0.31 to 0.52"; None if it has none."""
    pair = metrics.intervals.get(key) if metrics is not None else None
    return None if pair is None else " to ".join(format(bound, digits) for bound in pair)


def interval(metrics: ModelMetrics | None, key: str, digits: str = ".4g") -> str | None:
    """Format a metric's interval, such as "0.31 to 0.52, Wilson"; None if it has none."""
    between = bounds(metrics, key, digits)
    if metrics is None or between is None:
        return None
    return f"{between}, {metrics.interval_kinds.get(key, 'bootstrap')}"


def side_by_side(answers: Answers) -> list[Sample]:
    """Pair the answers of both models, row by row."""
    pairs = zip(answers.model, answers.base, strict=True)
    return [
        Sample(tuned.question, tuned.expected, tuned.answer, tuned.f1, base.answer, base.f1) for tuned, base in pairs
    ]
