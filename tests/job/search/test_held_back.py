"""Which training rows a search holds back: whole groups, a share, no more than it needs."""

import numpy as np
import pytest
from datasets import Dataset

from job.errors import DataError
from job.search import held_back


def rows(count: int) -> Dataset:
    return Dataset.from_dict({"question": [f"question {number}" for number in range(count)]})


@pytest.mark.parametrize("count", [20, 100, 338])
def test_a_fifth_is_held_back_and_no_row_is_lost(count: int) -> None:
    parts = held_back.divide(rows(count), np.arange(count), 42, "train.epochs")
    assert len(parts["test"]) == round(count * held_back.SHARE)
    assert sorted([*parts["train"]["question"], *parts["test"]["question"]]) == sorted(rows(count)["question"])


def test_near_twins_stay_on_one_side() -> None:
    groups = np.arange(100) // 3 * 5
    parts = held_back.divide(rows(100), groups, 42, "train.epochs")
    sides = {name: {int(groups[int(each.split()[1])]) for each in part["question"]} for name, part in parts.items()}
    assert not sides["train"] & sides["test"]
    assert 18 <= len(parts["test"]) <= 20


def test_of_many_rows_no_more_than_it_needs() -> None:
    parts = held_back.divide(rows(20_000), np.arange(20_000), 42, "train.epochs")
    assert len(parts["test"]) == held_back.MOST


@pytest.mark.parametrize(("count", "groups"), [(19, np.arange(19)), (30, np.zeros(30, dtype=np.int64))])
def test_too_few(count: int, groups: np.ndarray) -> None:
    with pytest.raises(DataError, match=r"train.epochs: found auto with .* set a number"):
        held_back.divide(rows(count), groups, 42, "train.epochs")


def test_a_part_is_the_same_each_time() -> None:
    assert held_back.draw_part(rows(100), 30, 7)["question"] == held_back.draw_part(rows(100), 30, 7)["question"]
    assert held_back.draw_part(rows(100), 100, 7)["question"][:] == rows(100)["question"][:]
