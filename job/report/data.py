"""Data report: what a person wants to see of the data, made from data.json for the report's template.

It knows the layout of data.json and computes nothing that is not in it. It does not know the run: it works the same
when nothing was trained.
"""

from dataclasses import dataclass
from itertools import accumulate

from job.run.facts import DataFacts
from job.run.row_facts import Row

BARS = 40
HISTOGRAMS = {
    "tokens": ("Tokens a row", 1),
    "question_characters": ("Characters a question, in tens", 10),
    "answer_characters": ("Characters an answer, in tens", 10),
}
"""The lengths that data.json counts: the name for people, and the width of its bins."""


@dataclass(frozen=True)
class Share:
    """A part of the rows, and its share in percent."""

    name: str
    rows: int
    share: float


@dataclass(frozen=True)
class Reason:
    """Why rows were rejected, how many, and some of them."""

    reason: str
    rows: int
    examples: list[Row]


@dataclass(frozen=True)
class Bar:
    """The rows whose length is `first` to `last`; `last` is None for all that is beyond the bars before."""

    first: int
    last: int | None
    rows: int
    height: float
    """In percent of the highest bar."""


@dataclass(frozen=True)
class Histogram:
    """How often each length occurs. The four lengths are the starts of their bins."""

    name: str
    bars: list[Bar]
    smallest: int
    median: int
    p99: int
    largest: int


@dataclass(frozen=True)
class View:
    """The parts of the report's data section that need arithmetic."""

    shares: list[Share]
    reasons: list[Reason]
    histograms: list[Histogram]


def view(data: DataFacts) -> View:
    """What the report's data section shows beside the facts themselves."""
    parts = {"trained": data.train, "tested": data.test, "rejected": data.rejected}
    counted = {name: data.lengths.get(name) or {} for name in HISTOGRAMS}
    return View(
        shares=[Share(name, rows, 100 * rows / max(1, data.rows)) for name, rows in parts.items()],
        reasons=[
            Reason(reason, rows, data.examples.get(reason, [])) for reason, rows in data.rejected_by_reason.items()
        ],
        histograms=[
            histogram(name, {int(length): rows for length, rows in counted[key].items()}, width)
            for key, (name, width) in HISTOGRAMS.items()
            if counted[key]
        ],
    )


def histogram(name: str, counts: dict[int, int], width: int) -> Histogram:
    """At most 40 bars of equal width and one for all that is beyond, so that a single long row flattens nothing.

    Args:
        counts: {start of the bin: rows}, at least one.
        width: of a bin.
    """
    lengths = sorted(counts)
    total = sum(counts.values())
    sums = dict(zip(lengths, accumulate(counts[length] for length in lengths), strict=True))
    median, p99 = (next(length for length in lengths if sums[length] >= share * total) for share in (0.5, 0.99))
    first = lengths[0]
    step = width * -(-(p99 - first + width) // (width * BARS))
    number = (p99 - first) // step + 1
    rows = [0] * (number + 1)
    for length, count in counts.items():
        rows[min((length - first) // step, number)] += count
    highest = max(rows)
    bars = [
        Bar(
            first + step * index,
            None if index == number else first + step * (index + 1) - 1,
            count,
            100 * count / highest,
        )
        for index, count in enumerate(rows)
        if index < number or count
    ]
    return Histogram(name, bars, first, median, p99, lengths[-1])
