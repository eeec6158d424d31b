"""The gate passes what is better, and nothing else."""

import math
from pathlib import Path
from typing import Any

import pytest

from job.config.schema import EvaluateSection
from job.errors import GateRefused
from job.evaluation import gate
from job.run.confidence_facts import Confidence
from job.run.facts import Gate, ModelMetrics


def metrics(values: dict[str, Any] | None) -> ModelMetrics | None:
    """Those of a model of which these were measured; None if none was."""
    if not values:
        return None
    answered = {"answered_rows": 9} if "f1" in values else {}
    return ModelMetrics(**{"loss": 1.0, "perplexity": 2.7, "token_accuracy": 0.5, "rows": 9, **answered, **values})


@pytest.mark.parametrize(
    ("settings", "tuned", "base", "passed"),
    [
        ({}, {"loss": 1.0}, {"loss": 2.0}, True),
        ({}, {"loss": 2.0}, {"loss": 2.0}, False),
        ({}, {"loss": 3.0}, {"loss": 2.0}, False),
        ({"gate": "f1"}, {"f1": 0.5}, {"f1": 0.4}, True),
        ({"gate": "f1"}, {"f1": 0.3}, {"f1": 0.4}, False),
        ({"gate": "f1", "gate_threshold": 0.3}, {"f1": 0.3}, {"f1": 0.4}, True),
        ({"gate": "f1", "gate_threshold": 0.0}, {"f1": 0.0}, {"f1": 0.4}, True),
        ({"gate": "loss", "gate_threshold": 1.5}, {"loss": 1.6}, {"loss": 2.0}, False),
        ({"gate": "loss", "gate_threshold": 1.5}, {"loss": 1.4}, None, True),
        ({"gate": "off"}, {"loss": 9.0}, {"loss": 2.0}, True),
        ({"gate": "off"}, {"loss": None}, {"loss": 2.0}, True),
        ({}, {}, {}, False),
    ],
)
def test_the_gate(
    settings: dict[str, object], tuned: dict[str, float], base: dict[str, float] | None, passed: bool
) -> None:
    found = gate.check(EvaluateSection.model_validate(settings), metrics(tuned), metrics(base))
    assert found.passed is passed
    if passed:
        gate.refuse(found, Path("model"))
    else:
        with pytest.raises(GateRefused, match="not published"):
            gate.refuse(found, Path("model"))


@pytest.mark.parametrize("metric", ["loss", "perplexity"])
@pytest.mark.parametrize("number", [None, math.nan, math.inf, -math.inf])
@pytest.mark.parametrize(
    ("tuned", "base", "threshold", "of"),
    [
        ("bad", 2.0, None, "tuned"),
        ("bad", 2.0, 9.0, "tuned"),
        ("bad", "bad", None, "tuned"),
        (1.0, "bad", None, "base"),
    ],
)
def test_nan_does_not_pass_a_gate(
    metric: str, number: float | None, tuned: object, base: object, threshold: float | None, of: str
) -> None:
    section = EvaluateSection.model_validate({"gate": metric, "gate_threshold": threshold})
    values = [metrics({metric: number if value == "bad" else value}) for value in (tuned, base)]
    found = gate.check(section, *values)
    assert not found.passed
    assert (found.value, found.needed) == (None, None), "a number that is none cannot stand in JSON"
    with pytest.raises(GateRefused, match=f"{metric} could not be measured: the {of} model's is not a number"):
        gate.refuse(found, Path("model"))


def ranked(value: float | None) -> ModelMetrics | None:
    """Metrics of a retriever, or of BM25, with this mean reciprocal rank."""
    if value is None:
        return None
    return ModelMetrics(loss=None, perplexity=None, token_accuracy=None, rows=9, mrr_at_10=value, recall_at_1=value)


@pytest.mark.parametrize(
    ("tuned", "base", "bm25", "passed", "rule"),
    [
        (0.8, 0.7, 0.6, True, "mrr_at_10 must be at least the base model's 0.7"),
        (0.7, 0.7, 0.6, True, "mrr_at_10 must be at least the base model's 0.7"),
        (0.6, 0.7, 0.6, False, "mrr_at_10 must be at least the base model's 0.7"),
        (0.7, 0.5, 0.7, True, "mrr_at_10 must be at least BM25's 0.7"),
        (0.6, 0.5, 0.7, False, "mrr_at_10 must be at least BM25's 0.7"),
        (0.7, 0.7, 0.7, True, "mrr_at_10 must be at least the base model's 0.7"),
        (0.7, 0.7, None, True, "mrr_at_10 must be at least the base model's 0.7"),
        (None, None, None, False, "mrr_at_10 could not be measured: there is no test row"),
    ],
)
def test_a_retriever_has_to_be_as_good_as_its_base_and_bm25(
    tuned: float | None, base: float | None, bm25: float | None, passed: bool, rule: str
) -> None:
    found = gate.check(EvaluateSection(), ranked(tuned), ranked(base), "retriever", ranked(bm25))
    assert (found.metric, found.passed, found.rule) == ("mrr_at_10", passed, rule)


@pytest.mark.parametrize(("needed", "passed"), [(0.6, True), (0.61, False)])
def test_a_threshold_decides_alone_for_a_retriever(needed: float, passed: bool) -> None:
    section = EvaluateSection(gate="recall_at_1", gate_threshold=needed)
    found = gate.check(section, ranked(0.6), ranked(0.9), "retriever", ranked(0.9))
    assert (found.passed, found.rule) == (passed, f"recall_at_1 must be at least the threshold {needed:.4g}")


def test_auto_is_the_loss_of_a_generator() -> None:
    found = gate.check(EvaluateSection(), metrics({"loss": 1.0}), metrics({"loss": 2.0}), "generator")
    assert (found.metric, found.passed) == ("loss", True)


@pytest.mark.parametrize(
    ("settings", "sure", "passed"),
    [
        ({}, False, True),
        ({"min_confidence": 0.5}, True, True),
        ({"min_confidence": 0.5}, False, False),
        ({"min_confidence": 0.5, "gate": "off"}, False, True),
    ],
)
def test_a_least_confidence_that_answers_cannot_have_closes_the_gate(
    settings: dict[str, Any], sure: bool, passed: bool
) -> None:
    """The server would answer whatever it is asked, as if the key were not there."""
    section = EvaluateSection.model_validate(settings)
    found = gate.check(section, metrics({"loss": 1.0}), metrics({"loss": 2.0}))
    confidence = Confidence(0, 1, 20, 10, 0.5, 0.7, (0.6, 0.8), 0.1, 0.1, []) if sure else None
    decision = gate.require_confidence(found, section, confidence)
    assert decision.passed is passed
    if not passed:
        with pytest.raises(
            GateRefused, match="not published: evaluate.min_confidence is 0.5, which needs a confidence"
        ):
            gate.refuse(decision, Path("model"))


def test_a_closed_gate_keeps_its_reason() -> None:
    closed = Gate("loss", passed=False, rule="loss must be below the base model's 2")
    assert gate.require_confidence(closed, EvaluateSection(min_confidence=0.5), None) == closed
