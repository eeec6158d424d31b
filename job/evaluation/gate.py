"""Gate: decides whether the tuned model is good enough to be published.

It knows metrics. It does not know how they are measured.
"""

from collections.abc import Mapping
from pathlib import Path

from job.config.schema import LOWER_IS_BETTER, EvaluateSection, Kind, Metric
from job.errors import GateRefused
from job.run.confidence_facts import Confidence
from job.run.facts import Gate, ModelMetrics

DEFAULTS: Mapping[Kind, Metric] = {"generator": "loss", "retriever": "mrr_at_10"}
"""The metric of evaluate.gate=auto."""


def check(
    section: EvaluateSection,
    tuned: ModelMetrics | None,
    base: ModelMetrics | None,
    kind: Kind = "generator",
    bm25: ModelMetrics | None = None,
) -> Gate:
    """Decide whether the tuned model may be published.

    Args:
        section: The config's evaluate section, with the gate's metric and threshold.
        tuned: Metrics of the tuned model; None if it was not measured.
        base: Metrics of the base model; None if it was not measured.
        kind: A generator has to be better than its base. A retriever may be as good, since its base is published with
            the user's answers for the first time; and it has to be as good as BM25.
        bm25: Metrics of BM25 beside a retriever; None if it was not measured.

    Returns:
        The decision, with the values compared and the rule in words.
    """
    if section.gate == "off":
        return Gate("off", passed=True, rule="off: published whatever the metrics say")
    metric = DEFAULTS[kind] if section.gate == "auto" else section.gate
    value, needed = _finite_value(tuned, metric), section.gate_threshold
    against = "the threshold"
    if needed is None:
        needed, against = _finite_value(base, metric), "the base model's"
        floor = _finite_value(bm25, metric)
        if needed is not None and floor is not None and floor > needed:
            needed, against = floor, "BM25's"
    if value is None or needed is None:
        name, metrics = ("tuned", tuned) if value is None else ("base", base)
        measured = metrics is not None and metrics.was_measured(metric)
        why = f"the {name} model's is not a number" if measured else "there is no test row"
        return Gate(metric, passed=False, rule=f"{metric} could not be measured: {why}")
    lower = metric in LOWER_IS_BETTER
    may_equal = kind == "retriever" or section.gate_threshold is not None
    passed = (value < needed if lower else value > needed) or (may_equal and value == needed)
    required = "at least" if kind == "retriever" else "below" if lower else "above"
    return Gate(metric, passed, value, needed, rule=f"{metric} must be {required} {against} {needed:.4g}")


def require_confidence(gate: Gate, section: EvaluateSection, confidence: Confidence | None) -> Gate:
    """Close the gate if the config names a least confidence and answers have none: the server would answer anything.

    Args:
        gate: The decision so far; one that is off stays open.
        section: The config's evaluate section.
        confidence: As calibrated on the test answers; None if they could not carry one.
    """
    if section.min_confidence is None or confidence is not None or gate.metric == "off" or not gate.passed:
        return gate
    rule = f"evaluate.min_confidence is {section.min_confidence}, which needs a confidence, and answers have none"
    return Gate("min_confidence", passed=False, rule=rule)


def refuse(gate: Gate, folder: Path) -> None:
    """Raise GateRefused unless the gate passed; `folder` is where the model is kept."""
    if not gate.passed:
        value = f"found {gate.value:.4g}" if gate.value is not None else "found nothing to compare"
        raise GateRefused(
            f"not published: {gate.rule}, {value}. The model is kept in {folder}; more or better rows, more "
            "epochs or another learning rate may help, and evaluate.gate changes or turns off the gate"
        )


def _finite_value(metrics: ModelMetrics | None, metric: str) -> float | None:
    """Return a metric; None if it was not measured, or is NaN or infinite, which cannot be compared."""
    value = metrics.value(metric) if metrics is not None else None
    return value if value is not None and abs(value) < float("inf") else None
