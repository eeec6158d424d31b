"""Paired: says how far two models differ on the same questions, and whether the difference is real.

The method is the paired bootstrap (Efron and Tibshirani 1993, chapters 8 and 13; for language models Koehn 2004,
"Statistical Significance Tests for Machine Translation Evaluation"): the questions are resampled with replacement, both
models' scores together, and the middle 95 % of the mean differences are the interval. Pairing cancels what both models
share, the difficulty of a question. So two models whose own intervals overlap may still differ clearly.

A difference is real if its interval lies on one side of 0, and at least `FEWEST` questions tell the models apart. The
bootstrap alone is too sure of few questions: a single one has no variance, and its interval no width. The number is the
sign test's: with 5 questions that differ, even if all favour one model, its p-value is 2 / 2**5 = 0.06; with 6 it is
0.03.

The module knows numbers, not what they measure.
"""

from typing import NamedTuple

import numpy as np

from job.evaluation.intervals import Numbers

RESAMPLES = 10_000
SEED = 0
FEWEST = 6
"""Questions on which two models must differ before a difference can be real."""
_CHUNK = 1_000_000
"""Numbers of questions in memory at once, 8 bytes each."""


class Difference(NamedTuple):
    """The mean difference of two models' scores, with its 95 % interval."""

    mean: float
    low: float
    high: float
    real: bool
    """Whether chance alone is an unlikely reason for it."""


def differences(scores: Numbers, pairs: list[tuple[int, int]]) -> list[Difference]:
    """Compare pairs of models, all on the same resamples, with a fixed seed.

    Args:
        scores: A score of each question for each model, shape (questions, models), with at least one question.
        pairs: Numbers of the models to compare: the scores of the first minus those of the second.
    """
    first, second = ([pair[side] for pair in pairs] for side in (0, 1))
    gaps = scores[:, first] - scores[:, second]
    means = gaps.mean(axis=0)
    lows, highs = np.quantile(_resampled_means(gaps), (0.025, 0.975), axis=0)
    differing = np.count_nonzero(gaps, axis=0)
    return [
        Difference(float(mean), float(low), float(high), bool((low > 0 or high < 0) and count >= FEWEST))
        for mean, low, high, count in zip(means, lows, highs, differing, strict=True)
    ]


def _resampled_means(gaps: Numbers) -> Numbers:
    """Return the mean of each column in each resample, shape (resamples, columns).

    A resample is a row of counts, how often it has each question. So all columns need one matrix product.
    """
    questions = len(gaps)
    random = np.random.default_rng(SEED)
    chunk = max(1, _CHUNK // questions)
    means = []
    for start in range(0, RESAMPLES, chunk):
        resamples = min(chunk, RESAMPLES - start)
        drawn = random.integers(0, questions, (resamples, questions)) + questions * np.arange(resamples)[:, None]
        counts = np.bincount(drawn.ravel(), minlength=resamples * questions).reshape(resamples, questions)
        means.append(counts @ gaps / questions)
    return np.concatenate(means)
