"""Which trials a search plans: by arithmetic alone."""

from collections.abc import Callable

import pytest

from job.run.search_facts import Trial
from job.search import plan
from job.search.plan import Limits, Pace, Setting

LIMITS = Limits(budget=600, rows=270, rows_per_step=16, kind="generator")
PACE = Pace(row=0.18, start=8, score=0)


def lengths(score: Callable[[int], float], budget: float = 1e6) -> list[int]:
    """The numbers of epochs that are tried, if a training of so many has that score."""
    tried: list[Trial] = []
    while True:
        left = budget - sum(270 * 0.18 * trial.epochs for trial in tried)
        epochs = plan.next_length(tried, 1e-4, 270, left, PACE._replace(start=0))
        if epochs is None:
            return [trial.epochs for trial in tried]
        tried.append(Trial(1e-4, epochs, 270, loss=1.0, score=score(epochs)))


@pytest.mark.parametrize(
    ("parameters", "kind", "lowest", "highest"),
    [
        (135_000_000, "generator", 1e-5, 3e-3),
        (7_000_000_000, "generator", 3e-6, 1e-3),
        (22_700_000, "retriever", 1e-6, 3e-4),
    ],
)
def test_rates_are_around_what_suits_the_size(parameters: int, kind: str, lowest: float, highest: float) -> None:
    rates = plan.candidate_rates(parameters, kind)  # type: ignore[arg-type]
    assert len(rates) == plan.RATES
    assert rates == sorted(rates)
    assert (rates[0], rates[-1]) == (lowest, highest)


def test_the_first_rung_fits_into_half_of_the_budget() -> None:
    rates = plan.candidate_rates(135_000_000, "generator")
    rung = plan.first_rung(rates, LIMITS, PACE, None)
    assert sorted(each.learning_rate for each in rung) == rates
    assert {each.learning_rate for each in rung[:2]} == {1e-4, 3e-4}, "the middle ones first"
    assert {each.epochs for each in rung} == {1}
    assert 64 <= rung[0].rows < 270
    visits = rung[0].rows
    assert 6 * PACE.seconds(rung[0]) + 2 * PACE.seconds(Setting(1e-4, 1, 3 * visits)) <= 300.1


def test_with_less_time_fewer_rates_and_with_none_no_trial() -> None:
    rates = plan.candidate_rates(135_000_000, "generator")
    counts = []
    for budget in (600, 330, 200, 100, 20):
        rung = plan.first_rung(rates, Limits(budget, 270, 16, "generator"), PACE, None)
        counts.append(len(rung))
        if 0 < len(rung) < 6:
            drop = (6 - len(rung)) // 2
            assert sorted(each.learning_rate for each in rung) == rates[drop:-drop], "the middle ones"
    assert counts == sorted(counts, reverse=True)
    assert counts[0] == 6
    assert counts[-1] == 0


def test_with_plenty_of_time_the_last_rung_has_the_epochs_of_the_run() -> None:
    rung = plan.first_rung([1e-5, 3e-5, 1e-4, 3e-4, 1e-3, 3e-3], Limits(1e6, 270, 16, "generator"), PACE, 9)
    assert {(each.epochs, each.rows) for each in rung} == {(3, 270)}
    done = [Trial(*each, loss=abs(each.learning_rate - 1e-4)) for each in rung]
    after = plan.next_rung(done, LIMITS, PACE, 1e6, 9)
    assert [(each.learning_rate, each.epochs) for each in after] == [(1e-4, 9), (3e-5, 9)]
    assert plan.next_rung([Trial(*each, loss=1.0) for each in after], LIMITS, PACE, 1e6, 9) == []


def test_a_rung_is_as_long_as_the_time_allows() -> None:
    done = [Trial(rate, 1, 90, loss=rate) for rate in (1e-5, 3e-5, 1e-4, 3e-4, 1e-3, 3e-3)]
    rungs = [plan.next_rung(done, LIMITS, PACE, left, None) for left in (1000, 200, 160, 90)]
    assert [[each[1:] for each in rung] for rung in rungs] == [[(1, 270)] * 2, [(1, 233)] * 2, [(1, 177)] * 2, []]


def test_a_rate_that_diverged_goes_no_further() -> None:
    done = [Trial(rate, 1, 270, loss=None) for rate in (1e-5, 3e-5, 1e-4, 3e-4, 1e-3)] + [Trial(3e-3, 1, 270, loss=9.0)]
    assert [each.learning_rate for each in plan.next_rung(done, LIMITS, PACE, 1e6, None)] == [3e-3]
    assert plan.next_rung(done[:5], LIMITS, PACE, 1e6, None) == []


def test_lengths_double_while_it_helps_and_then_go_between() -> None:
    assert lengths(lambda epochs: -abs(epochs - 6)) == [1, 2, 4, 8, 6]
    assert lengths(lambda epochs: -epochs) == [1, 2]
    assert lengths(lambda epochs: float(epochs)) == [1, 2, 4, 8, 16, 32, 64]
    assert lengths(lambda epochs: 1.0) == [1, 2], "of equal ones the shortest"


def test_lengths_end_with_the_budget() -> None:
    epoch = 270 * 0.18
    assert lengths(lambda epochs: float(epochs), 6.5 * epoch) == [1, 2, 3]
    assert lengths(lambda epochs: float(epochs), 0.5 * epoch) == []


def test_lengths_take_fewer_rows_where_the_budget_is_small() -> None:
    assert plan.rows_of_lengths(LIMITS, PACE, 600, []) == 270
    some = plan.rows_of_lengths(LIMITS, PACE, 150, [])
    assert 64 <= some < 270
    assert 3 * PACE.start + 7 * PACE.row * some <= 150
    assert plan.rows_of_lengths(LIMITS, PACE, 10, []) == 0
    assert plan.rows_of_lengths(LIMITS, PACE, 10, [Trial(1e-4, 1, 270, loss=1.0, score=0.5)]) == 270


def test_the_order_of_a_retriever_is_by_rank() -> None:
    trials = [Trial(1e-4, 1, 9, loss=0.5, score=0.7), Trial(1e-5, 1, 9, loss=0.6, score=0.9), Trial(1e-6, 1, 9)]
    assert [trial.learning_rate for trial in plan.ranked(trials, "retriever")] == [1e-5, 1e-4]
    assert [trial.learning_rate for trial in plan.ranked(trials, "generator")] == [1e-4, 1e-5]
