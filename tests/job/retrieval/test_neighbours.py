"""The index of near vectors: when it is written, what it holds, and that it is the same each time."""

from pathlib import Path

import faiss
import numpy as np
import pytest

from job.publishing import contract
from job.retrieval import index as indexes
from job.retrieval import neighbours
from job.retrieval.index import Entries, Index
from job.retrieval.retriever import _asked_rows


def unit(count: int, seed: int) -> np.ndarray:
    vectors = np.random.default_rng(seed).standard_normal((count, 8)).astype(np.float32)
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An index of 5 rows: rows 0 and 2 share an answer, and rows 1 and 4 have a question."""
    ids = np.array([0, 1, 0, 2, 3])
    questions = [None, "b?", None, None, "e?"]
    entries = Entries([f"answer {id}" for id in ids], questions, [str(row) for row in range(5)], ids)
    indexes.write(tmp_path, Index(entries, unit(5, 0), unit(5, 1), unit(2, 2), np.array([1, 4])))
    return tmp_path


def test_up_to_a_million_rows_have_no_file(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert neighbours.EXACT_ROWS == 1_000_000
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    (folder / neighbours.FILE).write_bytes(b"of an earlier run with more rows")
    neighbours.write(folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    monkeypatch.setattr(neighbours, "EXACT_ROWS", 5)
    neighbours.write(folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_more_rows_have_one_that_the_mark_lists(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neighbours, "EXACT_ROWS", 4)
    neighbours.write(folder)
    path = folder / neighbours.FILE
    content = path.read_bytes()
    neighbours.write(folder)
    assert path.read_bytes() == content, "a second run gives the same"
    assert path.stat().st_mode & 0o777 == 0o644
    index = faiss.read_index(str(path))
    scores, ids = index.search(unit(5, 0)[3:4], index.ntotal)
    assert sorted(ids[0].tolist()) == [0, 1, 3, 4, 5, 6], "row 2 has the answer of row 0; questions follow the 5 rows"
    assert (ids[0, 0], round(float(scores[0, 0]), 2)) == (3, 1.0)
    contract.write_mark(folder)
    mark = contract.read_mark((folder / contract.MARK).read_bytes())
    assert mark is not None and mark[neighbours.FILE] == contract.sha256(path)
    assert contract.foreign_files_in(folder) == []
    path.write_bytes(b"changed")
    assert contract.foreign_files_in(folder) == [neighbours.FILE]


def test_a_million_training_questions_are_not_all_asked_for_the_threshold() -> None:
    assert _asked_rows(5, 6) == [0, 1, 2, 3, 4]
    many = _asked_rows(1_100_000, 1_200_000)
    assert (len(set(many)), many[0], many[-1]) == (10_000, 0, 1_099_999)
