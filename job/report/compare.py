"""Compare: shows finished runs side by side on the same test questions, as one HTML file and for a terminal.

It knows how models are shown: their metrics, which differences are real, and some of their answers. What a run knows is
read in `models`, and whether the runs may be compared is decided in `test_set`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np

from job.errors import ConfigError, KickoffError
from job.evaluation.answers import draw_rows, is_exact
from job.evaluation.paired import FEWEST, RESAMPLES, Difference, differences
from job.report import models, test_set
from job.report.models import Model
from job.report.rendering import METRICS, bounds, environment, format_metric, value_of
from job.report.test_set import Question
from job.run import durable
from job.run.facts import Answer
from job.run.messages import one_line

QUESTIONS = 20
"""Questions that the page shows with all answers."""
SEED = 0
PARTLY = 0.5
"""The least token F1 of an answer that is called partly right."""
PAIRED = ("f1", "exact_match")
"""The metrics of which the differences are judged."""


@dataclass(frozen=True)
class Cell:
    """What a table says of one model: a value, and a remark on it, which may be empty."""

    value: str
    remark: str = ""

    def __str__(self) -> str:
        return f"{self.value} ({self.remark})" if self.remark else self.value


@dataclass(frozen=True)
class TableRow:
    """A row of the table of models, with a cell for each."""

    name: str
    cells: list[Cell]


@dataclass(frozen=True)
class Pair:
    """Two models, and how much the first one's metrics are above the second one's."""

    first: str
    second: str
    gaps: list[str]
    """For each of `PAIRED`, such as "+0.120 (0.050 to 0.190), real"."""


@dataclass(frozen=True)
class Given:
    """A model's answer, with its mark: right, partly or wrong."""

    model: str
    text: str
    f1: float
    mark: str


@dataclass(frozen=True)
class Asked:
    """A test question, the expected answer, and the models' answers."""

    question: str
    expected: str
    given: list[Given]


def compare(runs: Sequence[Path], out: Path) -> str:
    """Compare finished runs: write the page, and return the same without the answers for a terminal.

    Args:
        runs: Run folders, at least one; each run's model is compared with the others and with its base model.
        out: The HTML file to write.

    Raises:
        ConfigError: A run is not finished, the test sets differ, or `out` names no place for a file.
        KickoffError: The file cannot be written.
    """
    if out.is_dir() or not out.parent.is_dir():
        raise ConfigError(f"--out: found {out}, expected the name of a file in a folder that exists")
    rows, common, compared = _read(runs)
    table = _metric_rows(compared) + _fact_rows(compared)
    pairs = _pairs(compared, common)
    html = (
        environment(autoescape=True)
        .get_template("compare.html.jinja")
        .render(
            models=compared,
            rows=rows,
            answered=len(common),
            table=table,
            pairs=pairs,
            paired=[METRICS[name] for name in PAIRED],
            resamples=RESAMPLES,
            fewest=FEWEST,
            partly=PARTLY,
            asked=_asked(compared, common),
        )
    )
    try:
        durable.write(out, html)
    except OSError as error:
        raise KickoffError(f"--out: {out} cannot be written: {one_line(error)}") from None
    return "\n".join([*_lines(rows, len(common), compared, table, pairs), f"\ndone: the page is {out}"])


def _read(paths: Sequence[Path]) -> tuple[int, list[Question], list[Model]]:
    """Return the number of test questions, those that every model answered, and the models with these answers."""
    runs = [models.read(path, name) for path, name in zip(paths, _names(paths), strict=True)]
    for run in runs[1:]:
        test_set.require_same(runs[0].path, runs[0].questions, run.path, run.questions)
    tuned = [run.tuned for run in runs]
    others = [(run, model) for run in runs for model in run.others]
    answered = set(runs[0].questions).intersection(
        *(model.answers for model in [*tuned, *(model for _, model in others)])
    )
    common = [question for question in runs[0].questions if question in answered]
    joined = models.join([(run, models.on(model, common)) for run, model in others])
    return len(runs[0].questions), common, joined + [models.on(model, common) for model in tuned]


def _names(runs: Sequence[Path]) -> list[str]:
    """Name runs by their folders, or by their paths where two folders have the same name."""
    resolved = [run.resolve() for run in runs]
    for number, run in enumerate(runs):
        if resolved[number] in resolved[:number]:
            raise ConfigError(f"{run} is named twice; expected different runs")
    names = [run.name for run in resolved]
    return names if len(set(names)) == len(names) else [str(run) for run in runs]


def _metric_rows(compared: Sequence[Model]) -> list[TableRow]:
    def cell(model: Model, key: str) -> Cell:
        if not model.metrics.was_measured(key):
            return Cell("not measured")
        return Cell(format_metric(value_of(model.metrics, key), ".3f"), bounds(model.metrics, key, ".3f") or "")

    return [
        TableRow(name, [cell(model, key) for model in compared])
        for key, name in METRICS.items()
        if any(model.metrics.was_measured(key) for model in compared)
    ]


def _fact_rows(compared: Sequence[Model]) -> list[TableRow]:
    def known(value: float | None, form: str, unit: str = "") -> Cell:
        return Cell("not known" if value is None else format(value, form) + unit)

    return [
        TableRow("parameters", [known(model.parameters, ",") for model in compared]),
        TableRow("size on disk", [known(model.size and model.size / 1e6, ".1f", " MB") for model in compared]),
        TableRow(
            "training",
            [Cell("none") if model.is_base else known(model.training_seconds, ".1f", " s") for model in compared],
        ),
        TableRow("answers per second", [known(model.answers_per_second, ".1f") for model in compared]),
    ]


def _pairs(compared: Sequence[Model], common: Sequence[Question]) -> list[Pair]:
    """Compare each two models; the first of a pair is the one that stands later in the table."""
    numbers = [(later, earlier) for earlier, later in combinations(range(len(compared)), 2)]
    if not common or not numbers:
        return []
    answers = [[model.answers[question] for model in compared] for question in common]
    overlaps = np.array([[answer.f1 for answer in row] for row in answers])
    exact = np.array([[float(is_exact(answer)) for answer in row] for row in answers])
    judged = zip(numbers, *(differences(scores, numbers) for scores in (overlaps, exact)), strict=True)
    return [
        Pair(compared[first].name, compared[second].name, [_gap(one) for one in gaps])
        for (first, second), *gaps in judged
    ]


def _gap(found: Difference) -> str:
    # adding 0 makes a rounded -0.0 a 0.0
    mean, low, high = (round(value, 3) + 0.0 for value in (found.mean, found.low, found.high))
    return f"{mean:+.3f} ({low:.3f} to {high:.3f}), {'real' if found.real else 'not clear'}"


def _asked(compared: Sequence[Model], common: Sequence[Question]) -> list[Asked]:
    """Draw the questions to show, by seed, with the answers of all models."""
    drawn = [common[number] for number in draw_rows(len(common), QUESTIONS, SEED)]
    return [
        Asked(
            question.question,
            question.expected,
            [
                Given(model.name, answer.answer, answer.f1, _mark(answer))
                for model in compared
                for answer in [model.answers[question]]
            ],
        )
        for question in drawn
    ]


def _mark(answer: Answer) -> str:
    if is_exact(answer):
        return "right"
    return "partly" if answer.f1 >= PARTLY else "wrong"


def _lines(
    rows: int, answered: int, compared: Sequence[Model], table: Sequence[TableRow], pairs: Sequence[Pair]
) -> list[str]:
    cells = [[str(cell) for cell in row.cells] for row in table]
    columns = zip(*cells, strict=True)
    widths = [max(map(len, (model.name, *column))) for model, column in zip(compared, columns, strict=True)]

    def line(name: str, texts: Sequence[str]) -> str:
        return f"{name:28}" + "".join(f"  {text:>{width}}" for text, width in zip(texts, widths, strict=True))

    return [
        f"{rows} test questions; answers are compared on the {answered} that every model answered",
        line("", [model.name for model in compared]),
        *(line(row.name, texts) for row, texts in zip(table, cells, strict=True)),
        "",
        *(
            f"{pair.first} - {pair.second}: "
            + "; ".join(f"{METRICS[name]} {gap}" for name, gap in zip(PAIRED, pair.gaps, strict=True))
            for pair in pairs
        ),
    ]
