"""Grounded: how often a grounded generator answers, and how often rightly.

It does not answer where its retriever does not know, and where it says itself that it does not know. Token F1 and exact
match are of what it writes for all test questions, as those of a retriever are of its first row. The module knows
answers and confidences. It does not know models.
"""

from collections.abc import Sequence
from dataclasses import replace

from job.evaluation import intervals
from job.evaluation.answers import is_exact
from job.evaluation.metrics import exact_match
from job.retrieval.grounding import Found
from job.run.facts import Answer, ModelMetrics


def answered(texts: Sequence[str], found: Found) -> list[bool]:
    """Tell which questions get an answer.

    Args:
        texts: what the model writes for each.
        found: what its retriever finds for each.
    """
    return [
        known and not exact_match(text, found.unknown_answer) for text, known in zip(texts, found.known, strict=True)
    ]


def add_confidences(answers: Sequence[Answer], found: Found) -> list[Answer]:
    """Return the answers with the retriever's confidence in the best row of each."""
    return [
        replace(answer, confidence=round(confidence, 4))
        for answer, confidence in zip(answers, found.confidences, strict=True)
    ]


def add_metrics(
    measured: ModelMetrics, answers: Sequence[Answer], found: Found, unknown: Sequence[bool]
) -> ModelMetrics:
    """Return the metrics with the shares of questions that get an answer.

    Args:
        measured: metrics to add to.
        answers: to the test questions, at least one.
        found: what the retriever finds for these.
        unknown: for each unknown question, whether it gets an answer; may be empty.
    """
    given = answered([answer.answer for answer in answers], found)
    right = [one and is_exact(answer) for one, answer in zip(given, answers, strict=True)]
    rates = {"answered": (sum(given), len(given)), "answered_rightly": (sum(right), len(right))}
    if unknown:
        rates["unknown_answered"] = sum(unknown), len(unknown)
    values = {name: hits / rows for name, (hits, rows) in rates.items()}
    known = {name: intervals.rate(hits, rows) for name, (hits, rows) in rates.items()}
    return replace(
        measured,
        answered=values["answered"],
        answered_rightly=values["answered_rightly"],
        unknown_answered=values.get("unknown_answered"),
        unknown_rows=len(unknown) or None,
        intervals=measured.intervals | {name: (between.low, between.high) for name, between in known.items()},
        interval_kinds=measured.interval_kinds | {name: between.kind for name, between in known.items()},
    )
