"""What report and card have in common: the templates, the metrics' names, and answers side by side.

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


def side_by_side(answers: dict[str, list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """Each test question with the right answer, the tuned and the base model's."""
    pairs = zip(answers.get("model", []), answers.get("base", []), strict=True)
    return [{**tuned, "base": base["answer"], "base_f1": base["f1"]} for tuned, base in pairs]
