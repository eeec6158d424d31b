"""Report: renders a run as one HTML file, and the loss curve as a picture.

It reads the facts that the stages have written to the run folder. It does not know the stages.
"""

from pathlib import Path

from job.config.read import dump
from job.config.schema import Config, Kind
from job.report import pictures
from job.report.data import view
from job.report.rendering import (
    METRICS,
    environment,
    format_metric,
    interval,
    kept_weights,
    metric_rows,
    side_by_side,
    value_of,
)
from job.report.search import SearchView, view_search
from job.run import durable, fact_files
from job.run.facts import Answers, BaseFacts, DataFacts, Metrics, Published, TrainingFacts
from job.run.search_facts import SearchFacts


def report(run: Path, config: Config) -> None:
    """Write a self-contained `report.html` into the run folder, and `loss.png` if the model is trained.

    Args:
        run: The run folder; only data.json is required, and stages that have not run yet are left out.
        config: The run's config.
    """
    training, metrics, answers = (
        fact_files.read(run, TrainingFacts),
        fact_files.read(run, Metrics),
        fact_files.read(run, Answers),
    )
    data = fact_files.read(run, DataFacts)
    assert data is not None  # noqa: S101 - every run writes it first
    loss = _loss_picture(training, config.model.kind) if training is not None else b""
    if loss:
        durable.write(run / "loss.png", loss)
    html = (
        environment(autoescape=True)
        .get_template("report.html.jinja")
        .render(
            data=data,
            training=training,
            kept=kept_weights(training) if training is not None else None,
            metrics=metrics,
            phases=fact_files.read_phases(run),
            base=fact_files.read(run, BaseFacts),
            published=fact_files.read(run, Published),
            measured=metric_rows(metrics) if metrics is not None else [],
            config=dump(config),
            title=config.publish.repo or run.name,
            samples=side_by_side(answers)[:20] if answers is not None else [],
            loss_picture=pictures.data_uri(loss),
            view=view(data),
            search=_search(run),
        )
    )
    durable.write(run / "report.html", html)


def _search(run: Path) -> SearchView | None:
    facts = fact_files.read(run, SearchFacts)
    return view_search(facts) if facts is not None and facts.finished else None


def brief(metrics: Metrics) -> str:
    """Return the main metrics as a phrase for the last line."""
    names = [
        name
        for name in ("loss", "recall_at_1", "f1", "exact_match")
        if metrics.model and metrics.model.was_measured(name)
    ]
    values = [
        (name, *(format_metric(value_of(model, name), ".3f") for model in (metrics.model, metrics.base)))
        for name in names
    ]
    return ", ".join(f"{name} {tuned} (base {base})" for name, tuned, base in values)


def summary(metrics: Metrics, answers: Answers, count: int = 5) -> str:
    """Format the metrics and the first test questions for a terminal, the models beside each other.

    Args:
        metrics: Metrics of both models.
        answers: Answers of both models.
        count: Number of questions to show.
    """
    columns = {"tuned": metrics.model, "base": metrics.base} | ({"BM25": metrics.bm25} if metrics.bm25 else {})
    lines = [f"{'':36}" + "".join(f"{name:>10}" for name in columns)]
    for key, name in METRICS.items():
        if metrics.model is not None and metrics.model.was_measured(key):
            bounds = interval(metrics.model, key, ".3f")
            suffix = f"   tuned, 95 %: {bounds}" if bounds else ""
            values = [
                format_metric(value_of(model, key), ".3f") if model is not None and model.was_measured(key) else ""
                for model in columns.values()
            ]
            lines.append(f"{name:36}" + "".join(f"{value:>10}" for value in values) + suffix)
    for row in side_by_side(answers)[:count]:
        question, expected, tuned, base = (" ".join(text.split()) for text in row.texts())
        lines.append(f"\nquestion  {question}\nexpected  {expected}\ntuned     {tuned}\nbase      {base}")
    return "\n".join(lines)


def _loss_picture(training: TrainingFacts, kind: Kind) -> bytes:
    figure, axes = pictures.axes(7, 3.5)
    for key, label, style in (("train_loss", "training", "-"), ("test_loss", "test", "o-")):
        points = [(point["step"], point[key]) for point in training.history if point.get(key) is not None]
        if points:
            axes.plot(*zip(*points, strict=True), style, label=label, markersize=4)
    if training.kept_step is not None:
        axes.axvline(training.kept_step, color="black", linestyle=":", label=f"kept: step {training.kept_step}")
    axes.set(xlabel="step", ylabel=f"loss (nats per {'token' if kind == 'generator' else 'question'})")
    if axes.lines:
        axes.legend()
    return pictures.png(figure)
