"""Answers: chooses the rows to answer, scores an answer, and computes the metrics of all answers of a model.

It knows texts and numbers. It does not know how a model answers, and needs no torch.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from job.evaluation import intervals
from job.evaluation.metrics import exact_match, f1
from job.run.facts import Answer, ModelMetrics


def draw_rows(rows: int, most: int, seed: int) -> list[int]:
    """Choose the rows to answer.

    Args:
        rows: Number of test rows.
        most: Largest number of rows to answer.
        seed: Seed of the draw; rows are drawn at random because a file may be sorted.

    Returns:
        Row numbers in ascending order.
    """
    if rows <= most:
        return list(range(rows))
    return sorted(np.random.default_rng(seed).choice(rows, most, replace=False).tolist())


def score(row: dict[str, str], text: str, ended: bool) -> Answer:
    """Compare an answer with the expected one.

    Args:
        row: The test row, with where, question and answer.
        text: The model's answer.
        ended: Whether it ended with a stop token.
    """
    return Answer(row["where"], row["question"], row["answer"], text, f1(text, row["answer"]), ended)


def is_exact(answer: Answer) -> bool:
    """Return whether the model's answer is the expected one."""
    return exact_match(answer.answer, answer.expected)


def add_metrics(measured: ModelMetrics, answers: Sequence[Answer]) -> ModelMetrics:
    """Return the metrics with those of the answers and their intervals.

    Args:
        measured: Metrics to add to; those of other answers are replaced.
        answers: At least one answer.
    """
    count = len(answers)
    overlaps = np.array([row.f1 for row in answers])
    exact = sum(map(is_exact, answers))
    ended = sum(row.ended for row in answers)
    writes = measured.token_accuracy is not None  # a retriever's answers end where their rows do
    known = {
        "f1": intervals.bounded_ratio(overlaps, np.ones(count)),
        "exact_match": intervals.rate(exact, count),
        **({"ended": intervals.rate(ended, count)} if writes else {}),
    }
    return replace(
        measured,
        f1=float(overlaps.sum()) / count,
        exact_match=exact / count,
        ended=ended / count if writes else None,
        answered_rows=count,
        intervals=measured.intervals | {name: (between.low, between.high) for name, between in known.items()},
        interval_kinds=measured.interval_kinds | {name: between.kind for name, between in known.items()},
    )
