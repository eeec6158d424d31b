"""Rows on disk: each result has a file of its own, however many processes write it."""

from pathlib import Path

import datasets
import pyarrow as pa
import pytest

from job.data import rows
from job.data.rows import transform, write

SCHEMA = pa.schema({"question": pa.string(), "n": pa.int64()})


def upper(table: pa.Table) -> pa.Table:
    texts = [text.upper() for text in table["question"].to_pylist()]
    return pa.table([pa.array(texts), table["n"]], schema=SCHEMA)


def made(folder: Path, name: str, count: int) -> datasets.Dataset:
    batch = {"question": [f"{name} {n}" for n in range(count)], "n": list(range(count))}
    return write(folder / f"{name}.arrow", SCHEMA, [batch])


@pytest.mark.parametrize("processes", [None, 2])
def test_two_results_in_one_folder_do_not_replace_each_other(
    processes: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rows, "process_count", lambda count: processes)
    first, second = made(tmp_path, "first", 5000), made(tmp_path, "second", 5000)
    # a result is opened anew by the processes of the next step, so what lies in its file counts
    changed = [transform(part, upper, SCHEMA, "clean") for part in (first, second)]
    again = [transform(part, upper, SCHEMA, "clean") for part in changed]
    for name, part in zip(("FIRST", "SECOND"), again, strict=True):
        assert part["question"][:] == [f"{name} {n}" for n in range(5000)]
        assert part["n"][:] == list(range(5000))
    used = [file["filename"] for part in [first, second, *changed, *again] for file in part.cache_files]
    assert len(used) == len(set(used))
