"""The threshold: as many unknown questions get an answer as may, and not one more."""

import pytest
from hypothesis import given
from hypothesis import strategies as some

from job.retrieval.threshold import halves, threshold

CONFIDENCES = some.lists(
    some.floats(-1, 1, width=32) | some.sampled_from([0.25, 0.5, 0.75]), min_size=1, max_size=40
)  # the chosen ones are often equal
SHARES = some.floats(0.001, 0.999)


@given(CONFIDENCES, SHARES)
def test_no_more_are_answered_than_may_be(unknown: list[float], share: float) -> None:
    found = threshold(unknown, share)
    assert -1 <= found <= 1
    answered = [confidence for confidence in unknown if confidence >= found]
    assert len(answered) <= share * len(unknown) or found == 1.0


@given(CONFIDENCES, SHARES)
def test_only_equal_confidences_keep_it_from_being_lower(unknown: list[float], share: float) -> None:
    found = threshold(unknown, share)
    answered = sum(confidence >= found for confidence in unknown)
    if answered < int(share * len(unknown)):
        following = max(confidence for confidence in unknown if confidence < found)
        lower = sum(confidence >= following for confidence in unknown)
        assert lower > int(share * len(unknown)) or found - following <= 1e-4, "four digits are kept"


@pytest.mark.parametrize(
    ("unknown", "share", "expected"),
    [
        ([0.1, 0.2, 0.3, 0.4], 0.25, 0.35),
        ([0.4, 0.3, 0.2, 0.1], 0.5, 0.25),
        ([0.1, 0.2, 0.3, 0.4], 0.2, 0.7),
        ([0.1, 0.2, 0.3, 0.4], 0.99, 0.15),
        ([0.5], 0.05, 0.75),
        ([0.3, 0.5, 0.5, 0.7], 0.5, 0.6),
        ([0.5, 0.5], 0.5, 0.75),
        ([0.70001, 0.70003], 0.5, 0.7001),
    ],
)
def test_it_lies_halfway_between_two(unknown: list[float], share: float, expected: float) -> None:
    assert threshold(unknown, share) == pytest.approx(expected)


@given(some.lists(some.text(max_size=5), min_size=2, max_size=30, unique=True), some.integers(0, 2**32))
def test_each_question_is_in_one_half(questions: list[str], seed: int) -> None:
    setting, measuring = halves(questions, seed)
    assert sorted([*setting, *measuring]) == sorted(questions)
    assert 0 <= len(setting) - len(measuring) <= 1
    assert halves(questions, seed) == (setting, measuring)


def test_another_seed_draws_other_halves() -> None:
    questions = [f"{number}?" for number in range(30)]
    assert len({tuple(halves(questions, seed)[0]) for seed in range(10)}) == 10
