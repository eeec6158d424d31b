"""Search in the report: a table of the trials, a picture of them, and what was found."""

from collections import defaultdict
from dataclasses import dataclass
from typing import Any

from job.report import pictures
from job.run.search_facts import SearchFacts, Trial
from job.search import words


@dataclass(frozen=True)
class TrialRow:
    """A row of the table; numbers as text, empty where nothing was measured."""

    rate: str
    epochs: int
    rows: int
    loss: str
    score: str
    seconds: str
    chosen: bool


@dataclass(frozen=True)
class SearchView:
    """What the template shows of a search."""

    found: str
    facts: SearchFacts
    metric: str
    trials: list[TrialRow]
    decodings: list[tuple[str, str, bool]]
    """Settings, F1, and whether they were chosen."""
    picture: str


def view_search(facts: SearchFacts) -> SearchView:
    """Prepare a finished search for the template."""
    chosen = facts.chosen
    return SearchView(
        words.found(facts),
        facts,
        words.METRICS[facts.metric],
        [_row(trial, trial is chosen) for trial in facts.trials],
        [
            (words.decoding(each.settings), f"{each.score:.3f}", each.settings == facts.decoding)
            for each in facts.decodings
        ],
        pictures.data_uri(_picture(facts)) if facts.trials else "",
    )


def _row(trial: Trial, chosen: bool) -> TrialRow:
    return TrialRow(
        f"{trial.learning_rate:g}",
        trial.epochs,
        trial.rows,
        "diverged" if trial.loss is None else f"{trial.loss:.4g}",
        "" if trial.score is None else f"{trial.score:.3f}",
        f"{trial.seconds:.0f}",
        chosen,
    )


def _picture(facts: SearchFacts) -> bytes:
    """Draw the loss over the learning rate, a line for each length; and loss and score over the epochs."""
    figure, (left, right) = pictures.axes(10, 3.5, columns=2)
    lengths = defaultdict(list)
    for trial in facts.trials:
        if trial.loss is not None:
            lengths[trial.epochs, trial.rows].append((trial.learning_rate, trial.loss))
    for (epochs, rows), points in sorted(lengths.items()):
        _plot(left, points, f"{epochs} x {rows} rows")
    left.set(xscale="log", xlabel="learning rate", ylabel="loss of held-back rows")
    last = max((trial.rows for trial in facts.trials if trial.score is not None), default=facts.rows)
    alike = [trial for trial in facts.trials if (trial.learning_rate, trial.rows) == (facts.learning_rate, last)]
    _plot(right, [(trial.epochs, trial.loss) for trial in alike if trial.loss is not None], "loss")
    _plot(
        right, [(trial.epochs, trial.score) for trial in alike if trial.score is not None], words.METRICS[facts.metric]
    )
    right.axvline(facts.epochs, color="black", linestyle=":", label=f"chosen: {facts.epochs}")
    right.set(xlabel=f"epochs at the learning rate {facts.learning_rate:g}")
    for axes in (left, right):
        if axes.lines:
            axes.legend(fontsize="small")
    return pictures.png(figure)


def _plot(axes: Any, points: list[tuple[float, float]], label: str) -> None:
    if points:
        axes.plot(*zip(*sorted(points), strict=True), "o-", label=label, markersize=4)
