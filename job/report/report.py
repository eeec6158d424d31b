"""Report: what a person wants to see of a run, as one HTML file, and the loss curve as a picture.

It reads the JSON files that the stages left in the run folder and computes nothing that is not in them. It does
not know the stages.
"""

import base64
import io
import json
from pathlib import Path
from typing import Any

from job.config.schema import Config, dump
from job.report import data
from job.report.rendering import METRICS, environment, interval, metric_rows, shown, side_by_side
from job.run import durable

_SIDES = ("question", "expected", "answer", "base")


def report(run: Path, config: Config) -> None:
    """Write `report.html`, self-contained, into the run folder, and `loss.png` if something was trained.

    Only data.json has to be there; what the run has not reached yet is left out.
    """
    facts = {name: _read(run, f"{name}.json") for name in ("data", "training", "metrics", "answers", "phases")}
    published = _read(run, "published.json")
    loss = _loss_picture(facts["training"].get("history", [])) if facts["training"] else b""
    if loss:
        durable.write(run / "loss.png", loss)
    html = (
        environment(autoescape=True)
        .get_template("report.html.jinja")
        .render(
            facts,
            base=_read(run / "base", "base.json"),
            published=published,
            measured=metric_rows(facts["metrics"]) if facts["metrics"] else [],
            config=dump(config),
            title=config.publish.repo or run.name,
            samples=side_by_side(facts["answers"])[:20],
            loss_picture=_embedded(loss),
            view=data.view(facts["data"]),
        )
    )
    durable.write(run / "report.html", html)


def summary(metrics: dict[str, Any], answers: dict[str, list[dict[str, Any]]], count: int = 5) -> str:
    """Metrics and the first test questions, tuned model beside base model, for a terminal."""
    lines = [f"{'':34}{'tuned':>10}{'base':>10}"]
    for key, name in METRICS.items():
        if key in metrics["model"]:
            between = interval(metrics["model"], key, ".3f")
            known = f"   tuned, 95 %: {between}" if between else ""
            values = [shown(metrics[model][key], ".3f") for model in ("model", "base")]
            lines.append(f"{name:34}{values[0]:>10}{values[1]:>10}{known}")
    for row in side_by_side(answers)[:count]:
        question, expected, tuned, base = (" ".join(row[key].split()) for key in _SIDES)
        lines.append(f"\nquestion  {question}\nexpected  {expected}\ntuned     {tuned}\nbase      {base}")
    return "\n".join(lines)


def _read(folder: Path, name: str) -> dict[str, Any]:
    path = folder / name
    return dict(json.loads(path.read_text(encoding="utf-8"))) if path.exists() else {}


def _loss_picture(history: list[dict[str, float | None]]) -> bytes:
    figure, axes = _axes(7, 3.5)
    for key, label, style in (("train_loss", "training", "-"), ("test_loss", "test", "o-")):
        points = [(point["step"], point[key]) for point in history if point.get(key) is not None]
        if points:
            axes.plot(*zip(*points, strict=True), style, label=label, markersize=4)
    axes.set(xlabel="step", ylabel="loss (nats a token)")
    if axes.lines:
        axes.legend()
    return _png(figure)


def _axes(width: float, height: float) -> tuple[Any, Any]:
    from matplotlib.figure import Figure  # without pyplot: no state, no screen

    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots()
    axes.grid(alpha=0.3)
    return figure, axes


def _png(figure: Any) -> bytes:
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=120, metadata={"Software": None})
    return stream.getvalue()


def _embedded(picture: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(picture).decode()
