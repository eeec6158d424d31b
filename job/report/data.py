"""Data report: computes what the report's template shows about the data, from the data's facts.

It does not know the run, and works the same if nothing was trained.
"""

from dataclasses import dataclass
from itertools import accumulate

from job.run.facts import DataFacts
from job.run.row_facts import Row

BARS = 40
HISTOGRAMS = {
    "tokens": ("Tokens per row", 1),
    "question_characters": ("Characters per question, in tens", 10),
    "answer_characters": ("Characters per answer, in tens", 10),
}
"""{histogram in the facts: (its title, width of its bins)}."""


@dataclass(frozen=True)
class Part:
    """A part of the rows: trained, tested or rejected."""

    name: str
    rows: int
    percent: float
    """Of all rows."""


@dataclass(frozen=True)
class Reason:
    """A reason for which rows were rejected, with examples."""

    reason: str
    rows: int
    examples: list[Row]


@dataclass(frozen=True)
class Bar:
    """A bar: the rows with a length from `first` to `last`, or of at least `first` if `last` is None."""

    first: int
    last: int | None
    rows: int
    height: float
    """Percent of the highest bar."""


@dataclass(frozen=True)
class Histogram:
    """The distribution of a length; smallest, median, p99 and largest are starts of bins."""

    name: str
    bars: list[Bar]
    smallest: int
    median: int
    p99: int
    largest: int


@dataclass(frozen=True)
class View:
    """The computed parts of the report's data section."""

    parts: list[Part]
    reasons: list[Reason]
    histograms: list[Histogram]


def view(data: DataFacts) -> View:
    """Compute what the report's data section shows besides the facts themselves."""
    counts = {"trained": data.train, "tested": data.test, "rejected": data.rejected}
    counted = {name: data.lengths.get(name) or {} for name in HISTOGRAMS}
    return View(
        parts=[Part(name, rows, 100 * rows / max(1, data.rows)) for name, rows in counts.items()],
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
    """Compute a histogram of at most `BARS` bars of equal width, up to the 99th percentile, and one for the rest.

    The last bar keeps a single long row from flattening the others.

    Args:
        name: The title.
        counts: {start of a bin: rows}, at least one bin.
        width: Width of a bin.
    """
    lengths = sorted(counts)
    total = sum(counts.values())
    sums = dict(zip(lengths, accumulate(counts[length] for length in lengths), strict=True))
    median, p99 = (next(length for length in lengths if sums[length] >= quantile * total) for quantile in (0.5, 0.99))
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
