"""Likelihood: the mean probability that a model gives the tokens of its own answers.

It is the geometric mean, exp of the mean log-probability, over all tokens of the answer and the stop token that ends
it, in the model's own distribution: before temperature, penalties and the like. It knows ids and a model's loss. It
does not know texts.
"""

import math
from collections.abc import Sequence
from functools import partial
from itertools import chain

import torch

from job.data.rows import IGNORE_INDEX
from job.model.loss import Loss
from job.run.machine import Machine
from job.run.out_of_memory import in_halves
from job.training.batches import pad


@torch.no_grad()
def mean_probabilities(
    loss: Loss,
    prompts: Sequence[Sequence[int]],
    answers: Sequence[Sequence[int]],
    pad_id: int,
    batch_size: int,
    machine: Machine,
) -> list[float | None]:
    """Compute the mean token probability of each answer.

    Args:
        loss: Of the model that gave the answers.
        prompts: The ids of each prompt.
        answers: The ids of each answer, with its stop token.
        pad_id: The padding id.
        batch_size: Rows in one forward pass; halved where memory does not suffice.
        machine: Device, precision and processes, which share the work.

    Returns:
        A probability for each answer; None for an answer without any token, or if the probability is not a number.
    """
    rows = [row for row, answer in enumerate(answers) if answer]
    rows.sort(key=lambda row: len(prompts[row]) + len(answers[row]))

    def measure(part: list[int]) -> list[float]:
        ids = [[*prompts[row], *answers[row]] for row in part]
        labels = [[*[IGNORE_INDEX] * len(prompts[row]), *answers[row]] for row in part]
        with machine.autocast():
            sums = loss.measure_rows(*(tensor.to(machine.device) for tensor in pad(ids, labels, pad_id)))
        values: list[float] = (sums.total / sums.tokens).tolist()
        return values

    parts = [rows[start : start + batch_size] for start in range(0, len(rows), batch_size)]
    halving = partial(in_halves, work=measure, stage="evaluate", free=machine.free_cache)
    losses = dict(zip(rows, chain.from_iterable(machine.distribute(parts, halving)), strict=True))
    found = [losses.get(row, math.nan) for row in range(len(answers))]
    return [math.exp(-value) if math.isfinite(value) else None for value in found]
