"""Split: sizes, the seed, and that each row is on exactly one side."""

import datasets
import numpy as np
import pytest

from job.config.schema import SplitSection
from job.data import split as stage
from job.errors import ConfigError


def dataset(count: int) -> datasets.Dataset:
    columns = {name: [f"{name} {number}" for number in range(count)] for name in ("question", "answer", "where")}
    return datasets.Dataset.from_dict(
        columns, features=datasets.Features(dict.fromkeys(columns, datasets.Value("string")))
    )


def split(
    section: SplitSection, seed: int, rows: datasets.Dataset, test: datasets.Dataset | None = None
) -> datasets.DatasetDict:
    rows = datasets.Dataset.from_dict({**rows.to_dict(), "group": [None] * len(rows)}) if test is None else rows
    return stage.split(section, seed, rows, test, np.arange(len(rows)))


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


def test_groups_and_families_stay_on_one_side() -> None:
    rows = dataset(60).add_column("group", [str(number % 20) if number < 40 else None for number in range(60)])
    families = np.arange(60)
    families[41:60:2] = families[40:60:2]  # pairs among the last twenty
    for seed in range(5):
        parts = stage.split(SplitSection(), seed, rows, None, families)
        numbers = [{int(where.split()[1]) for where in part["where"]} for part in parts.values()]
        assert sorted(numbers[0] | numbers[1]) == list(range(60))
        assert {n % 20 for n in numbers[0] if n < 40}.isdisjoint(n % 20 for n in numbers[1] if n < 40)
        assert {n // 2 for n in numbers[0] if n >= 40}.isdisjoint(n // 2 for n in numbers[1] if n >= 40)


def test_each_row_is_tested_in_one_fold() -> None:
    rows = dataset(23)
    tested = [split(SplitSection(folds=5, fold=fold), 42, rows)["test"]["where"][:] for fold in range(1, 6)]
    assert sorted(map(len, tested)) == [4, 4, 5, 5, 5]
    assert sorted(where for fold in tested for where in fold) == sorted(rows["where"])
    with pytest.raises(ConfigError, match="the rows make only 3 groups"):
        split(SplitSection(folds=5), 42, dataset(3))
