"""Batches: which rows go into which optimizer step, and how they become tensors.

It knows row lengths and the padding id, nothing of models. The order depends on seed and epoch alone, so a resumed
run sees the very batches of an unbroken one, and any number of processes deals out the same steps.
"""

import numpy as np
import torch

from job.loss import IGNORED

POOL_STEPS = 50
"""Rows are sorted by length within pools of this many steps: little padding, and still a random order."""


def epoch_steps(lengths: list[int], rows_per_step: int, seed: int, epoch: int) -> list[list[int]]:
    """Row numbers of every optimizer step of an epoch; each row once, rows of like length together."""
    random = np.random.default_rng([seed, epoch])
    order = random.permutation(len(lengths)).tolist()
    # at least four pools, or else a small data set would meet in the same batches every epoch
    pool = rows_per_step * max(1, min(POOL_STEPS, len(lengths) // (rows_per_step * 4)))
    steps = []
    for start in range(0, len(order), pool):
        rows = sorted(order[start : start + pool], key=lengths.__getitem__)
        steps += [rows[first : first + rows_per_step] for first in range(0, len(rows), rows_per_step)]
    return [steps[index] for index in random.permutation(len(steps))]


def micro_batches(step: list[int], size: int, rank: int, processes: int) -> list[list[int]]:
    """The part of a step that this process computes, in forward passes of at most `size` rows."""
    mine = step[rank::processes]
    return [mine[start : start + size] for start in range(0, len(mine), size)]


def pad(
    input_ids: list[list[int]], labels: list[list[int]], pad_id: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Pad rows on the right.

    Returns:
        Ids, labels and attention mask, each [rows, longest row]. Padding is told by length and not by id: the
        padding id may well be the end-of-text id, whose label must stay.
    """
    longest = max(map(len, input_ids))
    ids = [row + [pad_id] * (longest - len(row)) for row in input_ids]
    marked = [row + [IGNORED] * (longest - len(row)) for row in labels]
    mask = [[1] * len(row) + [0] * (longest - len(row)) for row in input_ids]
    return torch.tensor(ids), torch.tensor(marked), torch.tensor(mask)
