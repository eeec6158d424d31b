"""Intervals: 95 % confidence intervals of metrics over a small number of rows.

A rate (yes or no in each row) gets the Wilson score interval (Wilson 1927), which is valid for few rows and at 0 and 1.
A mean or a ratio of sums gets the percentile bootstrap over rows (Efron 1979): the test rows are resampled with
replacement, and the middle 95 % of the results are the interval. Rows are resampled, not tokens, since the tokens of a
row are not independent.

A single row, or rows that are all equal, show no variance, and the bootstrap interval would have no width. For values
between 0 and 1 the Wilson interval is used then: zeros and ones have the largest variance of all such values. Without
these bounds a single row has no interval.

The module knows numbers, not what they measure.
"""

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Numbers = npt.NDArray[np.float64]
RESAMPLES = 2000
_CHUNK = 1_000_000
"""Row numbers in memory at once, 8 bytes each: with 20,000 rows all resamples would take 320 MB."""
_Z = 1.959963984540054
"""The 97.5 % quantile of the normal distribution."""


class Interval(NamedTuple):
    """A 95 % confidence interval."""

    low: float
    high: float
    kind: str
    """"Wilson" or "bootstrap"."""


def rate(hits: float, rows: int) -> Interval:
    """Compute the Wilson score interval of a rate (Wilson 1927).

    Args:
        hits: Number of rows that count, which may be fractional.
        rows: Number of rows, at least 1.
    """
    fraction, spread = hits / rows, _Z**2 / rows
    center = (fraction + spread / 2) / (1 + spread)
    half = math.sqrt(fraction * (1 - fraction) * spread + spread**2 / 4) / (1 + spread)
    return Interval(max(0.0, min(fraction, center - half)), min(1.0, max(fraction, center + half)), "Wilson")


def bounded_ratio(sums: Numbers, weights: Numbers) -> Interval:
    """Compute the interval of sum(sums) / sum(weights), where each row's ratio lies between 0 and 1.

    Args:
        sums: One value for each row, shape (rows,).
        weights: The row's weight, such as its number of tokens, shape (rows,).

    Returns:
        The bootstrap interval; the Wilson interval if that has no width.
    """
    interval = ratio(sums, weights)
    if interval is None or interval.low == interval.high:
        return rate(len(sums) * float(sums.sum() / weights.sum()), len(sums))
    return interval


def ratio(sums: Numbers, weights: Numbers) -> Interval | None:
    """Compute the percentile bootstrap interval of sum(sums) / sum(weights), with a fixed seed (Efron 1979).

    Args:
        sums: One value for each row, shape (rows,).
        weights: The row's weight, such as its number of tokens, shape (rows,).

    Returns:
        The interval; None for a single row, or if the ratio is not finite.
    """
    value = float(sums.sum() / weights.sum())
    if len(sums) < 2 or not math.isfinite(value):
        return None
    random = np.random.default_rng(0)
    chunk = max(1, _CHUNK // len(sums))
    results = []
    for start in range(0, RESAMPLES, chunk):
        rows = random.integers(0, len(sums), (min(chunk, RESAMPLES - start), len(sums)))
        results.append(sums[rows].sum(axis=1) / weights[rows].sum(axis=1))
    low, high = (float(bound) for bound in np.quantile(np.concatenate(results), (0.025, 0.975)))
    return Interval(min(low, value), max(high, value), "bootstrap")
