"""Confidence facts: how a generator's confidence in its answers was calibrated, and how good it is.

The records do not know how the figures were found or how they are shown.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class ReliabilityBin:
    """Test answers with about the same confidence, which came from a fit without them (cross-validation)."""

    answers: int
    confidence: float
    """Their mean."""
    right: int
    """How many of them are right; as a share it should be near `confidence`."""
    interval: tuple[float, float]
    """The 95 % interval of that share, Wilson's."""


@dataclass(frozen=True)
class Confidence:
    """A generator's confidence: sigmoid(intercept + slope x mean log-probability of the answer's tokens)."""

    intercept: float
    slope: float
    answers: int
    """Test answers that it was fitted on."""
    right: int
    """How many of them are right: a token F1 of at least `right_f1` with the expected answer."""
    right_f1: float
    auroc: float
    """How often a right answer has a higher confidence than a wrong one, of all such pairs."""
    auroc_interval: tuple[float, float]
    """The 95 % interval, by the bootstrap over the answers."""
    calibration_error: float
    """Expected calibration error over `bins`: the mean distance of confidence and share of right answers."""
    calibration_error_by_chance: float
    """What a confidence that is exactly right would show on as many answers."""
    bins: list[ReliabilityBin]
    """From the lowest to the highest confidence, with about as many answers each."""
    min_confidence: float | None = None
    """Confidence below which the server says that it does not know; None: it always answers."""
    answered: float | None = None
    """Share of the answers at or above `min_confidence`."""
    answered_rightly: float | None = None
    """Share of the answers at or above `min_confidence` and right."""
