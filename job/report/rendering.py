"""What report and card have in common: the templates, the metrics with their intervals, and answers side by side.

It knows how facts are shown, not where they come from.
"""

from dataclasses import dataclass
from pathlib import Path

import jinja2

from job.run.facts import Answers, Metrics, ModelMetrics

TEMPLATES = Path(__file__).parent / "templates"
METRICS = {
    "loss": "loss (lower is better)",
    "perplexity": "perplexity",
    "token_accuracy": "token accuracy",
    "f1": "token F1 of the answers",
    "exact_match": "exact match",
    "ended": "answers ended by themselves",
}
"""Every metric with its name for people, in the order of the tables."""


def environment(autoescape: bool = False) -> jinja2.Environment:
    """The templates; a name that a template uses and nobody gave is an error."""
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
    """A line of the metrics' table; each value with its interval and the interval's kind."""

    name: str
    tuned: str
    base: str


@dataclass(frozen=True)
class Sample:
    """A test question with the right answer, the tuned model's and the base model's."""

    question: str
    expected: str
    answer: str
    f1: float
    base: str
    base_f1: float

    def texts(self) -> tuple[str, str, str, str]:
        return self.question, self.expected, self.answer, self.base


def metric_rows(metrics: Metrics) -> list[MetricRow]:
    """The table of the metrics that were measured."""
    return [
        MetricRow(name, _measured(metrics.model, key), _measured(metrics.base, key))
        for key, name in METRICS.items()
        if metrics.model is not None and metrics.model.was_measured(key)
    ]


def value_of(metrics: ModelMetrics | None, key: str) -> float | None:
    return metrics.value(key) if metrics is not None else None


def shown(value: float | None, digits: str = ".4g") -> str:
    """A metric for people."""
    return "no number" if value is None else format(value, digits)


def _measured(metrics: ModelMetrics | None, key: str) -> str:
    between = interval(metrics, key)
    return shown(value_of(metrics, key)) + (f" ({between})" if between else "")


def interval(metrics: ModelMetrics | None, key: str, digits: str = ".4g") -> str | None:
    """As "0.31 to 0.52, Wilson"; None where there is none."""
    bounds = metrics.intervals.get(key) if metrics is not None else None
    if metrics is None or bounds is None:
        return None
    low, high = (format(bound, digits) for bound in bounds)
    return f"{low} to {high}, {metrics.interval_kinds.get(key, 'bootstrap')}"


def side_by_side(answers: Answers) -> list[Sample]:
    """The answers of both models, row by row."""
    pairs = zip(answers.model, answers.base, strict=True)
    return [
        Sample(tuned.question, tuned.expected, tuned.answer, tuned.f1, base.answer, base.f1) for tuned, base in pairs
    ]
