"""Intervals against published values, against what they promise, and in bounded memory."""

import math
import tracemalloc

import numpy as np
import pytest

from job.evaluation.intervals import Interval, bounded_ratio, rate, ratio


@pytest.mark.parametrize(
    ("hits", "rows", "low", "high"),
    [
        # Newcombe 1998, Statistics in Medicine 17, table I, method 3
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilsons_interval_as_published(hits: int, rows: int, low: float, high: float) -> None:
    found = rate(hits, rows)
    assert (found.low, found.high) == pytest.approx((low, high), abs=5e-5)
    assert found.kind == "Wilson"
    other = rate(rows - hits, rows)
    assert (1 - other.high, 1 - other.low) == pytest.approx((found.low, found.high))


@pytest.mark.parametrize("rows", [1, 2, 5, 30, 1000])
def test_a_rate_of_none_or_all_is_not_certain(rows: int) -> None:
    assert rate(0, rows).low == 0 < rate(0, rows).high < 1
    assert 0 < rate(rows, rows).low < 1 == rate(rows, rows).high


def test_the_bootstrap_agrees_with_the_normal_approximation() -> None:
    found = ratio(np.arange(1000) % 2 * 1.0, np.ones(1000))
    assert found == (pytest.approx(0.469, abs=0.005), pytest.approx(0.531, abs=0.005), "bootstrap")


def test_it_holds_the_truth_as_often_as_it_says() -> None:
    chance = np.random.default_rng(1)
    found = [bounded_ratio(chance.beta(2, 3, 40), np.ones(40)) for _ in range(300)]
    held = sum(between.low <= 0.4 <= between.high for between in found)
    assert 0.91 <= held / 300 <= 0.98


def test_a_ratio_is_of_the_sums_and_rows_stay_whole() -> None:
    tokens = np.array([100.0] + [1.0] * 99)
    losses = np.array([300.0] + [1.0] * 99)
    found = ratio(losses, tokens)
    assert found is not None
    assert found.low == 1.0, "without the long row"
    assert found.low < 399 / 199 < found.high


def test_rows_that_are_all_alike_are_not_certain() -> None:
    for count in (1, 2, 20):
        nothing, everything, half = (bounded_ratio(np.full(count, value), np.ones(count)) for value in (0.0, 1.0, 0.5))
        assert nothing == rate(0, count)
        assert everything == rate(count, count)
        assert half.low < 0.5 < half.high
        assert half.kind == "Wilson"


def test_one_row_has_no_interval_of_its_loss_and_nan_has_none() -> None:
    assert ratio(np.array([3.0]), np.array([2.0])) is None
    assert ratio(np.array([3.0, math.nan]), np.array([2.0, 1.0])) is None
    assert ratio(np.array([3.0, math.inf]), np.array([2.0, 1.0])) is None


def test_memory_stays_bounded_and_blocks_change_nothing() -> None:
    values = np.random.default_rng(2).random(20_000)
    tracemalloc.start()
    found = ratio(values, np.ones(len(values)))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 40 * 2**20, "all resamples at once are 320 MB"
    spread = 1.96 * values.std() / math.sqrt(len(values))
    expected = Interval(values.mean() - spread, values.mean() + spread, "bootstrap")
    assert found is not None
    assert found[:2] == pytest.approx(expected[:2], abs=spread / 10)
