"""Intervals: how far a metric of so few rows can be trusted, at 95 %.

A rate (yes or no in each row) gets Wilson's interval (Wilson 1927), which holds for few rows and at 0 and 1. A mean
and a ratio of sums get the bootstrap over rows (Efron 1979): the rows of the test set are drawn anew with replacement,
and the middle 95 % of the results are the interval. Rows are drawn and not tokens, since the tokens of a row stand and
fall together.

A single row, or rows that are all alike, show no spread, and the bootstrap would call them certain. Between 0 and 1
Wilson's interval is then taken: no values between 0 and 1 scatter more than zeros and ones do. Without such bounds a
single row has no interval.

It knows numbers, not what they measure.
"""

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Numbers = npt.NDArray[np.float64]
RESAMPLES = 2000
_DRAWN_AT_ONCE = 1_000_000
"""Row numbers in memory at once, 8 bytes each: at 20,000 rows all resamples together would take 320 MB."""
_Z = 1.959963984540054
"""97.5 % of a normal distribution lie below."""


class Interval(NamedTuple):
    low: float
    high: float
    kind: str
    """"Wilson" or "bootstrap"."""


def rate(hits: float, rows: int) -> Interval:
    """Wilson's interval of `hits` out of `rows`, at least one."""
    share, spread = hits / rows, _Z**2 / rows
    middle = (share + spread / 2) / (1 + spread)
    half = math.sqrt(share * (1 - share) * spread + spread**2 / 4) / (1 + spread)
    return Interval(max(0.0, min(share, middle - half)), min(1.0, max(share, middle + half)), "Wilson")


def bounded(sums: Numbers, weights: Numbers) -> Interval:
    """The interval of sum(sums) / sum(weights), whose rows' ratios lie between 0 and 1."""
    found = ratio(sums, weights)
    if found is None or found.low == found.high:
        return rate(len(sums) * float(sums.sum() / weights.sum()), len(sums))
    return found


def ratio(sums: Numbers, weights: Numbers) -> Interval | None:
    """The bootstrap's interval of sum(sums) / sum(weights), by a fixed seed; None for one row or no number."""
    value = float(sums.sum() / weights.sum())
    if len(sums) < 2 or not math.isfinite(value):
        return None
    random = np.random.default_rng(0)
    at_once = max(1, _DRAWN_AT_ONCE // len(sums))
    results = []
    for start in range(0, RESAMPLES, at_once):
        drawn = random.integers(0, len(sums), (min(at_once, RESAMPLES - start), len(sums)))
        results.append(sums[drawn].sum(axis=1) / weights[drawn].sum(axis=1))
    low, high = (float(bound) for bound in np.quantile(np.concatenate(results), (0.025, 0.975)))
    return Interval(min(low, value), max(high, value), "bootstrap")
