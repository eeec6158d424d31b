"""Threshold: the confidence below which a retriever says that it does not know.

It knows confidences of questions that nothing answers. It does not know encoders or files.
"""

import math
from collections.abc import Sequence

import numpy as np


def threshold(unknown: Sequence[float], max_wrong: float) -> float:
    """Choose the smallest threshold at which at most a share of the unknown questions would get an answer.

    Args:
        unknown: the confidence of the best answer to each question that no answer belongs to.
        max_wrong: that share.

    Returns:
        A confidence halfway between two different ones of `unknown`, rounded up to four digits, so that rounding
        elsewhere does not move one across; halfway between all of them and 1 where the share allows none.
    """
    ordered = np.sort(np.asarray(unknown, dtype=np.float64))[::-1]
    below = float(ordered[int(max_wrong * len(ordered))])
    higher = ordered[ordered > below]
    above = float(higher[-1]) if len(higher) else 1.0
    between = math.ceil(round((below + above) / 2 * 10_000, 6))
    if between <= below * 10_000:  # the two differ by less than the digits that are kept
        between += 1
    return min(1.0, between / 10_000)


def halves(questions: Sequence[str], seed: int) -> tuple[list[str], list[str]]:
    """Divide unknown questions at random: one half to set a threshold, and one to measure it.

    Args:
        questions: at least two.
        seed: of the draw.
    """
    order = np.random.default_rng(seed).permutation(len(questions)).tolist()
    middle = (len(questions) + 1) // 2
    return [questions[row] for row in order[:middle]], [questions[row] for row in order[middle:]]
