"""Batches: each row once an epoch, rows of like length together, and shared by processes."""

from collections import Counter

import pytest

from job.data.rows import IGNORE_INDEX
from job.training.batches import epoch_steps, micro_batches, pad


@pytest.mark.parametrize("count", [1, 2, 5, 10, 50, 1000])
def test_an_epoch_has_each_row_once(count: int) -> None:
    steps = epoch_steps([5] * count, 8, seed=1, epoch=0)
    assert sorted(row for step in steps for row in step) == list(range(count))
    assert len(steps) == -(-count // 8)


def test_epochs_differ_and_can_be_repeated() -> None:
    lengths = list(range(100))
    assert epoch_steps(lengths, 8, 1, 0) == epoch_steps(lengths, 8, 1, 0)
    assert epoch_steps(lengths, 8, 1, 0) != epoch_steps(lengths, 8, 1, 1)
    assert epoch_steps(lengths, 8, 1, 0) != epoch_steps(lengths, 8, 2, 0)


def test_rows_of_similar_length_share_a_batch() -> None:
    lengths = [row % 97 + 1 for row in range(2000)]
    padded = sum(max(lengths[row] for row in step) * len(step) for step in epoch_steps(lengths, 8, 1, 0))
    assert padded < 1.1 * sum(lengths)


@pytest.mark.parametrize("processes", [1, 2, 3])
def test_processes_divide_a_step(processes: int) -> None:
    step = list(range(10, 21))
    parts = [micro_batches(step, 2, rank, processes) for rank in range(processes)]
    assert Counter(row for part in parts for batch in part for row in batch) == Counter(step)
    assert max(len(batch) for part in parts for batch in part) <= 2


def test_padding_keeps_an_end_token_that_equals_the_padding_id() -> None:
    ids, labels, mask = pad([[5, 6, 0], [7, 0]], [[IGNORE_INDEX, 6, 0], [IGNORE_INDEX, 0]], pad_id=0)
    assert ids.tolist() == [[5, 6, 0], [7, 0, 0]]
    assert labels.tolist() == [[IGNORE_INDEX, 6, 0], [IGNORE_INDEX, 0, IGNORE_INDEX]]
    assert mask.tolist() == [[1, 1, 1], [1, 1, 0]]
