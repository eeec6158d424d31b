"""Report: what a person wants to see of a run, as one HTML file, and the loss curve as a picture.

It reads the JSON files that the stages left in the run folder and computes nothing that is not in them. It does
not know the stages.
"""

import base64
import io
import json
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import datasets

from job import durable
from job.config import Config, dump
from job.rendering import METRICS, environment, side_by_side


def report(run: Path, config: Config) -> None:
    """Write `report.html`, self-contained, and `loss.png` into the run folder."""
    facts = {name: _read(run, f"{name}.json") for name in ("data", "training", "metrics", "answers", "phases")}
    published = _read(run, "published.json")
    durable.write(run / "loss.png", _loss_picture(facts["training"].get("history", [])))
    html = (
        environment(autoescape=True)
        .get_template("report.html.jinja")
        .render(
            facts,
            base=_read(run / "base", "base.json"),
            published=published,
            names=METRICS,
            config=dump(config),
            title=config.publish.repo or run.name,
            samples=side_by_side(facts["answers"])[:20],
            loss_picture=_embedded((run / "loss.png").read_bytes()),
            length_picture=_embedded(_length_picture(facts["data"].get("lengths", {}))),
        )
    )
    durable.write(run / "report.html", html)


def summary(metrics: dict[str, Any], answers: dict[str, list[dict[str, Any]]], count: int = 5) -> str:
    """Metrics and the first test questions, tuned model beside base model, for a terminal."""
    lines = [f"{'':34}{'tuned':>10}{'base':>10}"]
    for key, name in METRICS.items():
        if key in metrics["model"]:
            lines.append(f"{name:34}{metrics['model'][key]:10.3f}{metrics['base'][key]:10.3f}")
    for row in side_by_side(answers)[:count]:
        lines.append(f"\nquestion  {row['question']}\nexpected  {row['expected']}")
        lines.append(f"tuned     {' '.join(row['answer'].split())}\nbase      {' '.join(row['base'].split())}")
    return "\n".join(lines)


def data_facts(
    sources: list[dict[str, Any]], rejected: list[dict[str, Any]], encoded: datasets.DatasetDict
) -> dict[str, Any]:
    """Counts of the data: rows in = rows trained + rows tested + rows rejected."""
    counts = {name: len(part) for name, part in encoded.items()}
    lengths = Counter(len(ids) for part in encoded.values() for ids in part["input_ids"])
    return {
        "sources": sources,
        "rows": sum(source["rows"] for source in sources),
        **counts,
        "rejected": len(rejected),
        "rejected_by_stage": dict(Counter(row["stage"] for row in rejected)),
        "rejected_by_reason": dict(
            Counter(f"{row['stage']}: {_kind(row['reason'])}" for row in rejected).most_common()
        ),
        "lengths": {str(length): lengths[length] for length in sorted(lengths)},
    }


def data_line(facts: dict[str, Any]) -> str:
    """The counts in one line, for the log."""
    reasons = ", ".join(f"{count} {reason}" for reason, count in facts["rejected_by_reason"].items())
    return (
        f"data: {facts['rows']} rows in = {facts['train']} to train + {facts['test']} to test + "
        f"{facts['rejected']} rejected{f' ({reasons})' if reasons else ''}"
    )


def write_rejected(path: Path, rejected: list[dict[str, Any]], loaded: Iterable[datasets.Dataset]) -> None:
    """One JSON line for each rejected row: where it stood, the stage, the reason, and the row as it was."""
    wanted = {row["where"] for row in rejected if "question" not in row}
    originals = {row["where"]: row for rows in loaded for row in rows if row["where"] in wanted}
    with path.open("w", encoding="utf-8") as stream:
        for row in rejected:
            stream.write(json.dumps({**row, **originals.get(row["where"], {})}, ensure_ascii=False) + "\n")


def _kind(reason: str) -> str:
    """A reason without what is particular to one row."""
    start = reason.split(":")[0]
    return "asks the same as an earlier row" if start.startswith("asks the same as") else start.split(", with")[0]


def _read(folder: Path, name: str) -> dict[str, Any]:
    path = folder / name
    return dict(json.loads(path.read_text(encoding="utf-8"))) if path.exists() else {}


def _loss_picture(history: list[dict[str, float]]) -> bytes:
    figure, axes = _axes(7, 3.5)
    for key, label, style in (("train_loss", "training", "-"), ("test_loss", "test", "o-")):
        points = [(point["step"], point[key]) for point in history if key in point]
        if points:
            axes.plot(*zip(*points, strict=True), style, label=label, markersize=4)
    axes.set(xlabel="step", ylabel="loss (nats a token)")
    if axes.lines:
        axes.legend()
    return _png(figure)


def _length_picture(lengths: dict[str, int]) -> bytes:
    figure, axes = _axes(7, 2.5)
    if lengths:
        axes.hist([int(length) for length in lengths], bins=min(60, len(lengths)), weights=list(lengths.values()))
    axes.set(xlabel="tokens a row", ylabel="rows")
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
