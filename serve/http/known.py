"""How sure the model is of a generated answer, and whether that is enough to give it.

It knows an answer and what was published. It does not know the form of responses.
"""

from dataclasses import dataclass

from serve.http import metrics
from serve.http.answer import Answer
from serve.http.state import AppState


@dataclass(frozen=True)
class Judgement:
    """`confidence` is None for a model without confidence.json, and every answer of it counts as known."""

    confidence: float | None
    known: bool


def judge(state: AppState, answer: Answer) -> Judgement:
    """Judge a complete answer, once: what is not known is counted."""
    published, found = state.confidence, answer.log_probability
    if published is None or found is None:
        return Judgement(None, True)
    confidence = published.of(found)
    known = published.min_confidence is None or confidence >= published.min_confidence
    metrics.UNKNOWN.inc(not known)
    return Judgement(confidence, known)
