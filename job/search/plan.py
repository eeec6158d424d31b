"""Plan: which trainings a search tries, given what the finished ones have shown and how much time is left.

Everything here is arithmetic on finished trials, without a clock and without chance. So a search that is interrupted
comes to the same trials again.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from job.config.schema import Kind
from job.run.search_facts import SearchFacts, Trial

RATES = 6
"""Learning rates that are tried, if the time allows."""
KEPT = 3
"""One rate in so many goes on to a training that takes so many times as long (successive halving, by thirds)."""
MOST_EPOCHS = 64
_SHARE_OF_RATES = 0.5
"""Of the budget, for the rates, where the number of epochs is searched for as well."""
_LONGEST_FIRST = 4
"""Epochs of the first trainings at most, however short they are."""
_FEWEST_STEPS = 4
"""Of a trial; fewer say nothing about a learning rate."""
_SERIES = tuple(digit * 10.0**power for power in range(-7, 0) for digit in (1, 3))
_CENTER: dict[Kind, tuple[float, float]] = {"generator": (3e-4, 1e8), "retriever": (2e-5, 2.5e7)}
"""A usual learning rate of full fine-tuning, and the parameters of a model for which it is usual."""


class Setting(NamedTuple):
    """What a trial is to train."""

    learning_rate: float
    epochs: int
    rows: int


@dataclass(frozen=True)
class Limits:
    """What a search may use."""

    budget: float
    """Seconds of all trials."""
    rows: int
    """Training rows that it has."""
    rows_per_step: int
    kind: Kind

    @property
    def fewest_rows(self) -> int:
        """Rows of the smallest trial."""
        return min(self.rows, _FEWEST_STEPS * self.rows_per_step)


class Pace(NamedTuple):
    """How long trials take."""

    row: float
    """Seconds to train a row once."""
    start: float
    """Seconds of a trial besides its steps and its score."""
    score: float
    """Seconds to measure the score; 0 as long as none was measured."""

    def seconds(self, setting: Setting) -> float:
        """Estimate a trial's time, with its score."""
        return self.start + self.score + self.row * setting.rows * setting.epochs


def candidate_rates(parameters: int, kind: Kind, count: int = RATES) -> list[float]:
    """List the rates to try, the lowest first: 1e-5, 3e-5, 1e-4 and so on, around what suits a model of this size.

    The usual rate falls with the square root of the number of parameters: 3e-4 for a generator of 100 million, 1e-4
    for one of a billion.
    """
    rate, size = _CENTER[kind]
    center = math.log(rate * math.sqrt(size / parameters))
    nearest = sorted(_SERIES, key=lambda each: abs(math.log(each) - center))
    return sorted(float(f"{each:.0e}") for each in nearest[:count])


def pace(facts: SearchFacts, trials: Sequence[Trial]) -> Pace:
    """Estimate how long trials take: by those that were made, and before the first one by what was measured."""
    visits = sum(trial.rows * trial.epochs for trial in trials if trial.training_seconds)
    row = sum(trial.training_seconds for trial in trials) / visits if visits else facts.row_seconds
    rest = [trial.seconds - trial.training_seconds - trial.score_seconds for trial in trials]
    scores = [trial.score_seconds for trial in trials if trial.score is not None]
    return Pace(row, _mean(rest) if rest else facts.start_seconds, _mean(scores) if scores else 0.0)


def first_rung(rates: Sequence[float], limits: Limits, pace: Pace, epochs: int | None) -> list[Setting]:
    """Plan the first trainings: as many rates, and as many rows, as the budget allows.

    Args:
        rates: to try, the lowest first.
        limits: of the search.
        pace: as measured before the first trial.
        epochs: of the run; None if they are searched for afterwards.

    Returns:
        A training for each rate, the middle rate first, in case the time ends before the last; none if the budget is
        too small for two.
    """
    budget = limits.budget * (_SHARE_OF_RATES if epochs is None else 1)
    most = limits.rows * (_LONGEST_FIRST if epochs is None else epochs)
    for count in range(len(rates), 1, -2):
        drop = (len(rates) - count) // 2
        tried = rates[drop : len(rates) - drop]
        rungs = _rungs(count)
        factors = sum(size * KEPT**number for number, size in enumerate(rungs))
        visits = (budget - sum(rungs) * (pace.start + pace.score)) / (pace.row * factors)
        if visits >= limits.fewest_rows:
            first = most if epochs is None else max(limits.fewest_rows, most // KEPT ** (len(rungs) - 1))
            middle = sorted(range(count), key=lambda place: abs(2 * place + 1 - count))
            return [Setting(tried[place], *_length(min(visits, first), limits)) for place in middle]
    return []


def next_rung(rung: Sequence[Trial], limits: Limits, pace: Pace, left: float, epochs: int | None) -> list[Setting]:
    """Plan the next trainings: the best third of the rates, three times as long, or as long as the time allows.

    Args:
        rung: the finished trainings of all rates that were left.
        limits: of the search.
        pace: how long trials take.
        left: seconds of the budget.
        epochs: of the run, which no trial exceeds; None if they are searched for afterwards.

    Returns:
        The trainings; none if one rate is left, or no time for longer trainings.
    """
    best = ranked(rung, limits.kind)[: math.ceil(len(rung) / KEPT)]
    if len(rung) <= KEPT - 1 or not best:
        return []
    before = rung[0].rows * rung[0].epochs
    share = left * (_SHARE_OF_RATES if epochs is None else 1) / len(best)
    affordable = (share - pace.start - pace.score) / pace.row
    longest = limits.rows * (MOST_EPOCHS if epochs is None else epochs)
    length = _length(min(KEPT * before, affordable, longest), limits)
    if affordable < before or math.prod(length) <= before:
        return []
    return [Setting(trial.learning_rate, *length) for trial in best]


def ranked(trials: Iterable[Trial], kind: Kind) -> list[Trial]:
    """Order trainings of the same length, the best first, without those that diverged.

    A generator's by their loss, which tells close rates apart on few rows. A retriever's by their rank, since what it
    publishes lies between the tuned weights and the base's, and the loss is that of the tuned ones.
    """
    learned = [trial for trial in trials if trial.loss is not None]
    if kind == "retriever":
        return sorted(learned, key=lambda trial: (-(trial.score or 0.0), trial.loss, trial.learning_rate))
    return sorted(learned, key=lambda trial: (trial.loss, trial.learning_rate))


def fewest_seconds(limits: Limits, pace: Pace, asked: Sequence[str], epochs: int) -> float:
    """Estimate the smallest budget with which a search for the keys `asked` can try anything; `epochs` of the run."""
    smallest = pace.start + pace.score + pace.row * limits.fewest_rows
    seconds = 2 * smallest if "train.learning_rate" in asked else 0.0
    if "train.epochs" in asked:
        return seconds / _SHARE_OF_RATES + 3 * (pace.start + pace.score) + 7 * pace.row * limits.fewest_rows
    return max(seconds, smallest + pace.row * limits.fewest_rows * (epochs - 1) if "model.decoding" in asked else 0.0)


def rows_of_lengths(limits: Limits, pace: Pace, left: float, made: Sequence[Trial]) -> int:
    """Choose how many rows the trainings of different length take.

    All, if one epoch and two fit into what is left of the budget, or if a training of all rows is there already; else
    so many that one, two and four epochs fit.

    Args:
        limits: of the search.
        pace: how long trials take.
        left: seconds of the budget.
        made: the trainings of the best rate.

    Returns:
        The rows; 0 if there is no time for any such training.
    """
    if any(trial.rows == limits.rows and trial.score is not None for trial in made):
        return limits.rows
    if 3 * pace.row * limits.rows + 2 * (pace.start + pace.score) <= left:
        return limits.rows
    rows = int((left - 3 * (pace.start + pace.score)) / (7 * pace.row))
    return min(rows, limits.rows) if rows >= limits.fewest_rows else 0


def next_length(tried: Sequence[Trial], rate: float, rows: int, left: float, pace: Pace) -> int | None:
    """Choose the number of epochs to try next: 1, 2, 4 and so on while it helps, then between the best ones.

    Args:
        tried: the trainings of this rate and these rows.
        rate: the learning rate.
        rows: of every training.
        left: seconds of the budget.
        pace: how long trials take.

    Returns:
        The epochs; None if nothing is left to try, or no time.
    """
    lengths = sorted({trial.epochs for trial in tried})
    best = best_length(tried)
    if best is None:
        wanted = [] if lengths else [1]
    elif best.epochs == lengths[-1]:
        affordable = int((left - pace.start - pace.score) / (pace.row * rows))
        longer = min(2 * best.epochs, affordable, MOST_EPOCHS)
        wanted = [longer] if longer > best.epochs else []
    else:
        place = lengths.index(best.epochs)
        above, below = lengths[place + 1], lengths[place - 1] if place else best.epochs
        wanted = [(best.epochs + above) // 2, (best.epochs + below + 1) // 2]
        wanted = [each for each in wanted if min(abs(each - length) for length in lengths) * 4 >= best.epochs]
    fitting = (each for each in wanted if each not in lengths and pace.seconds(Setting(rate, each, rows)) <= left)
    return next(fitting, None)


def best_length(trials: Iterable[Trial]) -> Trial | None:
    """Find the training with the best score; of equal ones that with the fewest epochs."""
    learned = [trial for trial in trials if trial.loss is not None and trial.score is not None]
    return min(learned, key=lambda trial: (-(trial.score or 0.0), trial.epochs), default=None)


def _rungs(count: int) -> list[int]:
    """How many rates each rung tries, until one is left."""
    sizes = [count]
    while sizes[-1] > KEPT - 1:
        sizes.append(math.ceil(sizes[-1] / KEPT))
    return [size for size in sizes if size > 1] or [count]


def _length(visits: float, limits: Limits) -> tuple[int, int]:
    """Turn a number of trained rows into epochs and rows: less than an epoch is one epoch of some rows."""
    if visits < limits.rows:
        return 1, max(limits.fewest_rows, int(visits))
    return int(visits / limits.rows), limits.rows


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
