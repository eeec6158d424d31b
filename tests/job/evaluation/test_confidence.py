"""The calibration: against scikit-learn's, on answers of a known kind, and when there is none."""

import logging
from collections.abc import Sequence

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from job.evaluation.confidence import LEAST, calibrate, fit, sigmoid
from job.run.facts import Answer


def answers(probabilities: Sequence[float | None], right: Sequence[bool]) -> list[Answer]:
    return [
        Answer(f"row {number}", "Q?", "A.", "A." if good else "B.", float(good), True, probability=probability)
        for number, (probability, good) in enumerate(zip(probabilities, right, strict=True))
    ]


def drawn(count: int, seed: int = 0) -> tuple[list[float], list[bool]]:
    """Probabilities, and answers of which each is right with probability sigmoid(2 + 3 ln p)."""
    random = np.random.default_rng(seed)
    logs = -random.exponential(0.7, count)
    return np.exp(logs).tolist(), (random.random(count) < sigmoid(2 + 3 * logs)).tolist()


def test_the_parameters_are_those_of_scikit_learn_with_platts_targets() -> None:
    random = np.random.default_rng(0)
    values = random.normal(size=120)
    right = random.random(120) < sigmoid(0.5 + 1.5 * values)
    hits, misses = right.sum(), (~right).sum()
    targets = np.where(right, (hits + 1) / (hits + 2), 1 / (misses + 2))
    # a target t is t of a right answer and 1 - t of a wrong one
    model = LogisticRegression(C=np.inf, tol=1e-10, max_iter=1000)
    doubled = np.concatenate([values, values])[:, None]
    model.fit(doubled, np.repeat([1, 0], 120), sample_weight=np.concatenate([targets, 1 - targets]))
    assert fit(values, right) == pytest.approx((model.intercept_[0], model.coef_[0, 0]), abs=1e-4)


def test_answers_that_separate_without_an_error_keep_a_finite_slope() -> None:
    values = np.concatenate([np.full(20, -1e-6), np.full(20, -3.0)])
    intercept, slope = fit(values, np.arange(40) < 20)
    assert sigmoid(np.array([intercept + slope * values[0]]))[0] == pytest.approx(21 / 22, abs=1e-3)
    assert np.isfinite([intercept, slope]).all()


def test_the_true_parameters_and_a_small_error_with_many_answers() -> None:
    found = calibrate(answers(*drawn(5000)), 0.5, seed=0)
    assert found is not None
    assert (found.intercept, found.slope) == (pytest.approx(2, abs=0.25), pytest.approx(3, abs=0.25))
    assert found.calibration_error < 0.03
    assert found.auroc_interval[0] < found.auroc < found.auroc_interval[1]
    assert sum(one.answers for one in found.bins) == found.answers == 5000
    assert sum(one.right for one in found.bins) == found.right
    assert [one.confidence for one in found.bins] == sorted(one.confidence for one in found.bins)
    assert all(one.interval[0] <= one.right / one.answers <= one.interval[1] for one in found.bins)
    assert found.answered is not None and found.answered_rightly is not None
    assert 0.5 < found.answered_rightly / found.answered < 1, "above one half, most are right"


def test_the_figures_of_a_hundred_answers_repeat_and_show_what_is_chance(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    found = calibrate(answers(*drawn(100)), None, seed=0)
    assert found == calibrate(answers(*drawn(100)), None, seed=0)
    assert found is not None and 0.02 < found.calibration_error_by_chance < 0.15
    assert found.answered is None and found.answered_rightly is None
    assert "evaluate: the confidence tells a right answer from a wrong one in" in caplog.text


@pytest.mark.parametrize(
    ("right", "message"),
    [
        ([True] * 50, "50 of the 50 answers are right"),
        ([False] * 50, "0 of the 50 answers are right"),
        ([True] * (LEAST - 1) + [False] * 41, "9 of the 50 answers are right; it takes 10 right and 10 wrong ones"),
        ([number < 25 for number in range(50)], "right answers are no likelier to the model than wrong ones"),
    ],
)
def test_answers_that_cannot_carry_one_get_none_with_a_log_line(
    right: list[bool], message: str, caplog: pytest.LogCaptureFixture
) -> None:
    probabilities = np.linspace(0.1, 0.9, 50).tolist()
    assert calibrate(answers(probabilities, right), 0.5, seed=0) is None
    assert [message in record.message for record in caplog.records] == [True]


def test_no_answers_are_not_worth_a_line(caplog: pytest.LogCaptureFixture) -> None:
    assert calibrate([], None, seed=0) is None
    assert not caplog.records


def test_answers_for_which_there_was_no_room_do_not_count() -> None:
    probabilities, right = drawn(100)
    more = answers([*probabilities, *[None] * 20], [*right, *[False] * 20])
    assert calibrate(more, None, seed=0) == calibrate(answers(probabilities, right), None, seed=0)


def test_probabilities_of_zero_and_one_are_no_trouble() -> None:
    probabilities = [1.0] * 30 + [0.0] * 5 + [0.5] * 25
    right = [number % 3 > 0 for number in range(30)] + [False] * 5 + [number % 4 == 0 for number in range(25)]
    found = calibrate(answers(probabilities, right), None, seed=0)
    assert found is not None and found.slope > 0
