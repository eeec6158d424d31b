"""Paired differences: cases whose answer is known, what the interval promises, and bounded memory."""

import tracemalloc

import numpy as np
import numpy.typing as npt
import pytest

from job.evaluation.paired import FEWEST, Difference, differences


@pytest.fixture
def random() -> np.random.Generator:
    return np.random.default_rng(7)


def difference(first: npt.ArrayLike, second: npt.ArrayLike) -> Difference:
    (found,) = differences(np.stack([np.asarray(first, float), np.asarray(second, float)], axis=1), [(0, 1)])
    return found


@pytest.mark.parametrize("questions", [1, 5, 200])
def test_a_model_does_not_differ_from_itself(questions: int, random: np.random.Generator) -> None:
    scores = random.random(questions)
    assert difference(scores, scores) == (0, 0, 0, False)


@pytest.mark.parametrize("shift", [0.1, -0.1])
def test_a_constant_shift_is_real(shift: float, random: np.random.Generator) -> None:
    scores = random.random(200)
    found = difference(scores + shift, scores)
    assert found == (*[pytest.approx(shift)] * 3, True)


def test_few_questions_that_differ_are_no_proof() -> None:
    """Whatever the bootstrap says: with five, the sign test cannot tell them from chance either."""
    for differing in range(9):
        for questions in (differing + 1, 1000):
            found = difference(np.arange(questions) < differing, np.zeros(questions))
            assert found.real == (differing >= FEWEST == 6)
    assert difference([1.0], [0.0]) == (1, 1, 1, False)


def test_the_interval_is_that_of_a_mean_of_paired_differences() -> None:
    """Of 1,000 questions, 100 favour one model and 60 the other: by the normal approximation 0.04 +- 1.96 * 0.0126."""
    first = np.repeat([1.0, 0.0, 0.0], [100, 60, 840])
    second = np.repeat([0.0, 1.0, 0.0], [100, 60, 840])
    assert difference(first, second) == (0.04, pytest.approx(0.0153, abs=2e-3), pytest.approx(0.0647, abs=2e-3), True)


def test_pairing_cancels_what_is_hard_for_both(random: np.random.Generator) -> None:
    """The means alone, 0.5 +- 0.06 each, would not tell 0.03 from nothing."""
    hard = np.tile([0.0, 1.0], 150)
    found = difference(np.clip(hard + random.random(300) * 0.06, 0, 2), hard)
    assert found.real and found.high - found.low < 0.01


def test_chance_is_called_real_as_often_as_said(random: np.random.Generator) -> None:
    both = (random.beta(2, 3, (60, 2)) for _ in range(400))
    assert 0.02 <= np.mean([differences(scores, [(0, 1)])[0].real for scores in both]) <= 0.09


def test_many_models_give_what_each_two_give(random: np.random.Generator) -> None:
    scores = random.random((50, 4))
    pairs = [(3, 0), (0, 3), (2, 1)]
    together = differences(scores, pairs)
    for found, pair in zip(together, pairs, strict=True):
        assert found == tuple(map(pytest.approx, differences(scores, [pair])[0]))
    assert together[0][:3] == tuple(map(pytest.approx, (-together[1].mean, -together[1].high, -together[1].low)))


def test_many_questions_take_little_memory(random: np.random.Generator) -> None:
    scores = random.random((20_000, 2))
    tracemalloc.start()
    differences(scores, [(0, 1)])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 100e6, "all resamples at once would be 1.6 GB"
