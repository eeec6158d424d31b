"""What report and card have in common: the templates, the metrics with their intervals, and answers side by side.

It knows how facts are shown, not where they come from.
"""

from pathlib import Path
from typing import Any

import jinja2

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


def metric_rows(metrics: dict[str, Any]) -> list[dict[str, str]]:
    """The table of the metrics: {"name", "tuned", "base"}, each value with its interval and the interval's kind."""
    return [
        {"name": name, "tuned": _measured(metrics["model"], key), "base": _measured(metrics["base"], key)}
        for key, name in METRICS.items()
        if key in metrics["model"]
    ]


def shown(value: float | None, digits: str = ".4g") -> str:
    """A metric for people."""
    return "no number" if value is None else format(value, digits)


def _measured(metrics: dict[str, Any], key: str) -> str:
    between = interval(metrics, key)
    return shown(metrics[key]) + (f" ({between})" if between else "")


def interval(metrics: dict[str, Any], key: str, digits: str = ".4g") -> str | None:
    """As "0.31 to 0.52, Wilson"; None where there is none."""
    bounds = metrics.get("intervals", {}).get(key)
    if bounds is None:
        return None
    low, high = (format(bound, digits) for bound in bounds)
    return f"{low} to {high}, {metrics.get('interval_kinds', {}).get(key, 'bootstrap')}"


def side_by_side(answers: dict[str, list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """Each test question with the right answer, the tuned and the base model's."""
    pairs = zip(answers.get("model", []), answers.get("base", []), strict=True)
    return [{**tuned, "base": base["answer"], "base_f1": base["f1"]} for tuned, base in pairs]
