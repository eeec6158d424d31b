"""Confidence: turns the mean token probability of a generated answer into the probability that the answer is right.

A model's probabilities are not that: most fine-tuned models are too sure of themselves. So the test answers, of which
each is known to be right or wrong, calibrate them by Platt's method (Platt 1999): a logistic regression with two
parameters, which a hundred rows can carry. Its targets are Platt's own, a little inside 0 and 1, so that rows which
can be separated without an error do not lead to an infinite slope. The input is the logarithm of the probability; the
probability itself and its log-odds did no better, and the log-odds of 1 are infinite.

How good the result is can only be told on answers that it was not fitted on, so all figures but the parameters come
from cross-validation. The module knows numbers and what is right, not models.
"""

import logging
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from job.evaluation import intervals
from job.evaluation.retrieval import auroc
from job.run.confidence_facts import Confidence, ReliabilityBin
from job.run.facts import Answer

log = logging.getLogger(__name__)
RIGHT_F1 = 0.5
"""Token F1 from which an answer counts as right. An exact match would be too much to ask: a generator words its answers
anew. Below a half, most of its words, or of the expected ones, are others."""
LEAST = 10
"""Right answers, and wrong ones, that a fit needs: ten of the rarer kind for each slope (Peduzzi et al. 1996)."""
BINS = 5
FOLDS = 10
SMALLEST = 1e-300
"""A smaller probability counts as this one: the logarithm of 0 is infinite."""
STEPS = 100
"""Of Newton's method, at most; it takes about six."""
Numbers = NDArray[np.float64]


def calibrate(answers: Sequence[Answer], min_confidence: float | None, seed: int) -> Confidence | None:
    """Fit a confidence to test answers, and measure it by cross-validation.

    Args:
        answers: Of the tuned model; those without a probability (no room for an answer) are left out.
        min_confidence: The config's threshold.
        seed: Of the folds.

    Returns:
        The confidence; None, with a log line, if the answers cannot carry one; None if there are no answers.
    """
    scored = [answer for answer in answers if answer.probability is not None]
    right = np.array([answer.f1 >= RIGHT_F1 for answer in scored], dtype=bool)
    if not scored:
        return None
    if min(right.sum(), (~right).sum()) < LEAST:
        _log_none(f"{right.sum()} of the {len(right)} answers are right; it takes {LEAST} right and {LEAST} wrong ones")
        return None
    probabilities = np.array([answer.probability for answer in scored], dtype=np.float64)
    values = np.log(np.maximum(probabilities, SMALLEST))
    intercept, slope = fit(values, right)
    if slope <= 0:
        _log_none("right answers are no likelier to the model than wrong ones")
        return None
    confidences = _cross_validated(values, right, seed)
    bins = _bins(confidences, right)
    known = confidences >= min_confidence if min_confidence is not None else None
    found = Confidence(
        intercept=round(intercept, 6),
        slope=round(slope, 6),
        answers=len(right),
        right=int(right.sum()),
        right_f1=RIGHT_F1,
        auroc=auroc(values[right], values[~right]),
        auroc_interval=_auroc_interval(values, right),
        calibration_error=_error(bins),
        calibration_error_by_chance=_error_by_chance(confidences),
        bins=bins,
        min_confidence=min_confidence,
        answered=float(known.mean()) if known is not None else None,
        answered_rightly=float((known & right).mean()) if known is not None else None,
    )
    log.info(
        f"evaluate: the confidence tells a right answer from a wrong one in {found.auroc:.0%} of the pairs, and is off "
        f"by {found.calibration_error:.2f} on average (by chance {found.calibration_error_by_chance:.2f})"
    )
    return found


def _log_none(reason: str) -> None:
    log.warning(f"evaluate: answers get no confidence: {reason}")


def fit(values: Numbers, right: NDArray[np.bool_]) -> tuple[float, float]:
    """Fit sigmoid(intercept + slope x value) to what is right: Newton's method with Platt's targets (Lin et al. 2007).

    Args:
        values: One for each answer, (answers,).
        right: Whether the answer is right; some are and some are not.

    Returns:
        Intercept and slope.
    """
    hits, misses = int(right.sum()), int((~right).sum())
    targets = np.where(right, (hits + 1) / (hits + 2), 1 / (misses + 2))
    columns = np.stack([np.ones_like(values), values], axis=1)
    weights = np.array([np.log((hits + 1) / (misses + 1)), 0.0])
    for _ in range(STEPS):
        predicted = sigmoid(columns @ weights)
        gradient = columns.T @ (predicted - targets)
        curvature = columns.T @ (columns * (predicted * (1 - predicted))[:, None]) + 1e-12 * np.eye(2)
        step, before = np.linalg.solve(curvature, gradient), _log_loss(columns @ weights, targets)
        size = 1.0
        while size > 1e-10 and _log_loss(columns @ (weights - size * step), targets) > before:
            size /= 2  # a whole step may overshoot where the curve is flat
        weights = weights - size * step
        if float(np.abs(size * step).max()) < 1e-10:
            break
    return float(weights[0]), float(weights[1])


def sigmoid(values: Numbers) -> Numbers:
    """Return 1 / (1 + exp(-value)), without an overflow."""
    half: Numbers = (1 + np.tanh(values / 2)) / 2
    return half


def _log_loss(values: Numbers, targets: Numbers) -> float:
    return float((np.logaddexp(0, values) - targets * values).sum())


def _cross_validated(values: Numbers, right: NDArray[np.bool_], seed: int) -> Numbers:
    """Give each answer the confidence of a fit to the other folds; right and wrong answers are spread evenly."""
    order = np.random.default_rng(seed).permutation(len(right))
    order = order[np.argsort(right[order], kind="stable")]
    folds = np.empty(len(right), dtype=np.int64)
    folds[order] = np.arange(len(right)) % FOLDS
    confidences = np.empty(len(right))
    for fold in range(FOLDS):
        held = folds == fold
        intercept, slope = fit(values[~held], right[~held])
        confidences[held] = sigmoid(intercept + slope * values[held])
    return confidences


def _bins(confidences: Numbers, right: NDArray[np.bool_]) -> list[ReliabilityBin]:
    """Group the answers by confidence, about as many in each group: with equal widths most groups would be empty."""
    groups = np.array_split(np.argsort(confidences, kind="stable"), BINS)
    bins = []
    for group in groups:
        hits = int(right[group].sum())
        low, high, _ = intervals.rate(hits, len(group))
        bins.append(ReliabilityBin(len(group), float(confidences[group].mean()), hits, (low, high)))
    return bins


def _error(bins: Sequence[ReliabilityBin]) -> float:
    """Compute the expected calibration error (Naeini et al. 2015)."""
    return sum(abs(one.right - one.answers * one.confidence) for one in bins) / sum(one.answers for one in bins)


def _error_by_chance(confidences: Numbers) -> float:
    """Compute the mean error of draws whose probability is exactly the confidence."""
    random = np.random.default_rng(0)
    draws = (random.random(len(confidences)) < confidences for _ in range(200))
    return float(np.mean([_error(_bins(confidences, drawn)) for drawn in draws]))


def _auroc_interval(values: Numbers, right: NDArray[np.bool_]) -> tuple[float, float]:
    random = np.random.default_rng(0)
    areas = []
    for _ in range(intervals.RESAMPLES):
        rows = random.integers(0, len(right), len(right))
        if right[rows].any() and not right[rows].all():
            areas.append(auroc(values[rows][right[rows]], values[rows][~right[rows]]))
    low, high = (float(bound) for bound in np.quantile(areas, (0.025, 0.975)))
    return low, high
