"""Gate: whether the tuned model is good enough to be published. It knows metrics, not how they were measured."""

from pathlib import Path
from typing import Any

from job.config.schema import LOWER_IS_BETTER, EvaluateSection
from job.errors import GateRefused


def check(section: EvaluateSection, tuned: dict[str, Any], base: dict[str, Any] | None) -> dict[str, Any]:
    """Whether the tuned model may be published.

    Args:
        tuned, base: metrics; one that is missing or None was not measured, or is no number.

    Returns:
        {"metric", "passed", "value", "needed", "rule"}, as it stands in metrics.json and on the card; without "value"
        and "needed" if there is nothing to compare.
    """
    metric = section.gate
    if metric == "off":
        return {"metric": "off", "passed": True, "rule": "off: published whatever the metrics say"}
    value = _number(tuned, metric)
    needed = section.gate_threshold if section.gate_threshold is not None else _number(base or {}, metric)
    if value is None or needed is None:
        name, metrics = ("tuned", tuned) if value is None else ("base", base or {})
        why = f"the {name} model's is no number" if metric in metrics else "there is no test row"
        return {"metric": metric, "passed": False, "rule": f"{metric} could not be measured: {why}"}
    against = "the base model's" if section.gate_threshold is None else "the threshold"
    # the threshold itself is good enough; the base model has to be beaten
    lower = metric in LOWER_IS_BETTER
    better = value < needed if lower else value > needed
    passed = better or (section.gate_threshold is not None and value == needed)
    rule = f"{metric} must be {'below' if lower else 'above'} {against} {needed:.4g}"
    return {"metric": metric, "passed": passed, "value": value, "needed": needed, "rule": rule}


def refuse(gate: dict[str, Any], folder: Path) -> None:
    """Raise GateRefused unless the gate passed."""
    if not gate["passed"]:
        found = f"found {gate['value']:.4g}" if "value" in gate else "found nothing to compare"
        raise GateRefused(
            f"not published: {gate['rule']}, {found}. The model is kept in {folder}; more or better rows, more "
            "epochs or another learning rate may help, and evaluate.gate sets or turns off the gate"
        )


def _number(metrics: dict[str, Any], metric: str) -> float | None:
    """None also for NaN and infinity: nothing is better than they are, and nothing worse."""
    value = metrics.get(metric)
    return value if value is not None and abs(value) < float("inf") else None
