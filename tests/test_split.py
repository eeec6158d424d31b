"""Split: sizes, the seed, and that each row is on exactly one side."""

import datasets
import pytest

from job.config import SplitSection
from job.split import split


def dataset(count: int) -> datasets.Dataset:
    columns = {name: [f"{name} {number}" for number in range(count)] for name in ("question", "answer", "where")}
    return datasets.Dataset.from_dict(
        columns, features=datasets.Features(dict.fromkeys(columns, datasets.Value("string")))
    )


@pytest.mark.parametrize(("count", "tested"), [(0, 0), (1, 0), (2, 1), (3, 1), (5, 1), (10, 2), (50, 8), (100, 15)])
def test_sizes(count: int, tested: int) -> None:
    parts = split(SplitSection(), 42, dataset(count))
    assert list(parts) == ["train", "test"]
    assert (len(parts["train"]), len(parts["test"])) == (count - tested, tested)


@pytest.mark.parametrize("count", [1, 2, 5, 10, 50])
@pytest.mark.parametrize("size", [0.001, 0.15, 0.5, 0.999])
def test_no_row_is_lost_or_doubled(count: int, size: float) -> None:
    rows = dataset(count)
    parts = split(SplitSection(test_size=size), 7, rows)
    assert sorted([*parts["train"]["where"], *parts["test"]["where"]]) == sorted(rows["where"])
    assert len(parts["train"]) >= 1
    assert len(parts["test"]) >= min(1, count - 1)
    for part in parts.values():
        assert all(row["question"].split()[1] == row["answer"].split()[1] == row["where"].split()[1] for row in part)


def test_seed_decides() -> None:
    first, again, other = (split(SplitSection(), seed, dataset(50)) for seed in (42, 42, 43))
    assert first["test"]["where"][:] == again["test"]["where"][:]
    assert first["train"]["where"][:] == again["train"]["where"][:]
    assert set(first["test"]["where"]) != set(other["test"]["where"])


@pytest.mark.parametrize("count", [0, 1, 5])
def test_given_test_rows_replace_the_split(count: int) -> None:
    rows, test = dataset(count), dataset(3)
    parts = split(SplitSection(test_size=0.5), 42, rows, test)
    assert (list(parts["train"]), list(parts["test"])) == (list(rows), list(test))
