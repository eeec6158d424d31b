"""Data report: what a person wants to see of the data, made from data.json for the report's template.

It knows the layout of data.json and computes nothing that is not in it. It does not know the run: it works the same
when nothing was trained.
"""

from itertools import accumulate
from typing import Any

BARS = 40
HISTOGRAMS = {
    "tokens": ("Tokens a row", 1),
    "question_characters": ("Characters a question, in tens", 10),
    "answer_characters": ("Characters an answer, in tens", 10),
}
"""The lengths that data.json counts: the name for people, and the width of its bins."""


def view(data: dict[str, Any]) -> dict[str, Any]:
    """The parts of the data section that need arithmetic.

    Returns:
        "shares": [{name, rows, share}], what became of the rows, in percent. "reasons": [{reason, rows, examples}].
        "histograms": [{name, bars, smallest, median, p99, largest}], one for each length that was counted.
    """
    parts = {"trained": data["train"], "tested": data["test"], "rejected": data["rejected"]}
    examples = data.get("examples", {})
    counted = {name: data["lengths"].get(name) or {} for name in HISTOGRAMS}
    return {
        "shares": [
            {"name": name, "rows": rows, "share": 100 * rows / max(1, data["rows"])} for name, rows in parts.items()
        ],
        "reasons": [
            {"reason": reason, "rows": rows, "examples": examples.get(reason, [])}
            for reason, rows in data["rejected_by_reason"].items()
        ],
        "histograms": [
            {"name": name, **histogram({int(length): rows for length, rows in counted[key].items()}, width)}
            for key, (name, width) in HISTOGRAMS.items()
            if counted[key]
        ],
    }


def histogram(counts: dict[int, int], width: int) -> dict[str, Any]:
    """At most 40 bars of equal width and one for all that is beyond, so that a single long row flattens nothing.

    Args:
        counts: {start of the bin: rows}, at least one.
        width: of a bin.

    Returns:
        bars: [{first, last, rows, height}], height in percent of the highest; last is None beyond the last bar.
        smallest, median, p99, largest: the bins' starts.
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
    bars: list[dict[str, Any]] = [
        {"first": first + step * index, "last": first + step * (index + 1) - 1, "rows": count}
        for index, count in enumerate(rows)
    ]
    bars[-1]["last"] = None
    if not rows[-1]:
        bars.pop()
    highest = max(rows)
    return {
        "bars": [{**bar, "height": 100 * bar["rows"] / highest} for bar in bars],
        "smallest": first,
        "median": median,
        "p99": p99,
        "largest": lengths[-1],
    }
