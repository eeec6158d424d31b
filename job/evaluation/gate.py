"""Gate: whether the tuned model is good enough to be published. It knows metrics, not how they were measured."""

from pathlib import Path

from job.config.schema import LOWER_IS_BETTER, EvaluateSection
from job.errors import GateRefused
from job.run.facts import Gate, ModelMetrics


def check(section: EvaluateSection, tuned: ModelMetrics | None, base: ModelMetrics | None) -> Gate:
    """Whether the tuned model may be published.

    Args:
        tuned, base: None for a model that was not measured.
    """
    metric = section.gate
    if metric == "off":
        return Gate("off", passed=True, rule="off: published whatever the metrics say")
    value = _number(tuned, metric)
    needed = section.gate_threshold if section.gate_threshold is not None else _number(base, metric)
    if value is None or needed is None:
        name, metrics = ("tuned", tuned) if value is None else ("base", base)
        measured = metrics is not None and metrics.was_measured(metric)
        why = f"the {name} model's is no number" if measured else "there is no test row"
        return Gate(metric, passed=False, rule=f"{metric} could not be measured: {why}")
    against = "the base model's" if section.gate_threshold is None else "the threshold"
    # the threshold itself is good enough; the base model has to be beaten
    lower = metric in LOWER_IS_BETTER
    better = value < needed if lower else value > needed
    passed = better or (section.gate_threshold is not None and value == needed)
    rule = f"{metric} must be {'below' if lower else 'above'} {against} {needed:.4g}"
    return Gate(metric, passed, value, needed, rule=rule)


def refuse(gate: Gate, folder: Path) -> None:
    """Raise GateRefused unless the gate passed."""
    if not gate.passed:
        found = f"found {gate.value:.4g}" if gate.value is not None else "found nothing to compare"
        raise GateRefused(
            f"not published: {gate.rule}, {found}. The model is kept in {folder}; more or better rows, more "
            "epochs or another learning rate may help, and evaluate.gate sets or turns off the gate"
        )


def _number(metrics: ModelMetrics | None, metric: str) -> float | None:
    """None also for NaN and infinity: nothing is better than they are, and nothing worse."""
    value = metrics.value(metric) if metrics is not None else None
    return value if value is not None and abs(value) < float("inf") else None
