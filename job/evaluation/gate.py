"""Gate: decides whether the tuned model is good enough to be published.

It knows metrics. It does not know how they are measured.
"""

from pathlib import Path

from job.config.schema import LOWER_IS_BETTER, EvaluateSection
from job.errors import GateRefused
from job.run.facts import Gate, ModelMetrics


def check(section: EvaluateSection, tuned: ModelMetrics | None, base: ModelMetrics | None) -> Gate:
    """Decide whether the tuned model may be published.

    Args:
        section: The config's evaluate section, with the gate's metric and threshold.
        tuned: Metrics of the tuned model; None if it was not measured.
        base: Metrics of the base model; None if it was not measured.

    Returns:
        The decision, with the values compared and the rule in words.
    """
    metric = section.gate
    if metric == "off":
        return Gate("off", passed=True, rule="off: published whatever the metrics say")
    value = _finite_value(tuned, metric)
    needed = section.gate_threshold if section.gate_threshold is not None else _finite_value(base, metric)
    if value is None or needed is None:
        name, metrics = ("tuned", tuned) if value is None else ("base", base)
        measured = metrics is not None and metrics.was_measured(metric)
        why = f"the {name} model's is not a number" if measured else "there is no test row"
        return Gate(metric, passed=False, rule=f"{metric} could not be measured: {why}")
    against = "the base model's" if section.gate_threshold is None else "the threshold"
    # a value equal to the threshold passes; the base model has to be beaten
    lower = metric in LOWER_IS_BETTER
    better = value < needed if lower else value > needed
    passed = better or (section.gate_threshold is not None and value == needed)
    rule = f"{metric} must be {'below' if lower else 'above'} {against} {needed:.4g}"
    return Gate(metric, passed, value, needed, rule=rule)


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
