"""The index of near vectors: the server's answers are those of the exact search, and what does not fit is refused."""

import logging
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pyarrow as pa
import pytest
import torch
from safetensors.torch import load_file
from served import Served
from tiny_retriever import ROWS

from job.retrieval import neighbours as job_neighbours
from serve.repository import find
from serve.retriever import load as loading
from serve.retriever import neighbours as serve_neighbours
from serve.retriever.index import Index
from serve.retriever.load import load
from serve.retriever.neighbours import Neighbours
from serve.retriever.rows import Rows

WIDTH = 16
CPU = torch.device("cpu")


def unit(count: int, random: np.random.Generator) -> torch.Tensor:
    vectors = random.standard_normal((count, WIDTH)).astype(np.float32)
    return torch.from_numpy(vectors / np.linalg.norm(vectors, axis=1, keepdims=True))


def made(count: int, answers: int, seed: int = 0, equal: int = 0) -> Rows:
    """Rows that share answers, a third of them without a question; the first `equal` questions have one vector."""
    random = np.random.default_rng(seed)
    ids = random.integers(0, answers, count)
    by_answer = unit(answers, random)
    asked = np.flatnonzero(random.random(count) < 2 / 3)
    questions = unit(len(asked), random)
    questions[:equal] = questions[:1]
    texts = pa.array([str(row) for row in range(count)])
    columns = {"id": pa.array(range(count)), "answer_id": pa.array(ids), "answer": pa.array([f"a{id}" for id in ids])}
    table = pa.table({**columns, "question": texts, "source": texts})
    return Rows(table, by_answer[ids], unit(count, random), questions, torch.from_numpy(asked))


def near(rows: Rows, folder: Path) -> Neighbours:
    ids = rows.table.column("answer_id").to_numpy()
    index = job_neighbours.build(rows.answers.numpy(), rows.questions.numpy(), ids)
    faiss.write_index(index, str(folder / job_neighbours.FILE))
    return Neighbours(folder, rows)


@pytest.mark.parametrize("count", [1, 5])
@pytest.mark.parametrize(
    "rows",
    [made(3000, 900), made(3000, 4), made(1, 1), made(30, 30), made(2000, 1500, equal=400)],
    ids=["shared answers", "very few answers", "one row", "few rows", "equal questions"],
)
def test_answers_are_those_of_the_exact_search(rows: Rows, count: int, tmp_path: Path) -> None:
    exact, index = Index(rows, CPU), Index(rows, CPU, near(rows, tmp_path))
    others = unit(40, np.random.default_rng(1))
    vectors = torch.cat([others, rows.questions[:40], rows.answers[:40]])
    counts = [count] * len(vectors)
    assert index.search(vectors, counts) == exact.search(vectors, counts)


def test_more_lists_are_searched_while_there_are_too_few_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serve_neighbours, "PROBES", 1)
    monkeypatch.setattr(serve_neighbours, "SPARE", 0)
    rows = made(2000, 7)
    vectors = unit(20, np.random.default_rng(1))
    hits = Index(rows, CPU, near(rows, tmp_path)).search(vectors, [20] * 20)
    assert hits == Index(rows, CPU).search(vectors, [20] * 20)
    assert {len(some) for some in hits} == {7}


def test_a_question_gets_the_same_alone_and_in_a_batch(tmp_path: Path) -> None:
    rows = made(3000, 900)
    index = Index(rows, CPU, near(rows, tmp_path))
    vectors = unit(20, np.random.default_rng(1))
    alone = [index.search(vectors[at : at + 1], [3])[0] for at in range(20)]
    counts = [3] * 19 + [20]
    assert index.search(vectors, counts)[:19] == alone[:19]


def test_the_file_is_mapped_and_not_changed(tmp_path: Path) -> None:
    rows = made(3000, 900)
    near(rows, tmp_path)
    path = tmp_path / job_neighbours.FILE
    content = path.read_bytes()
    path.chmod(0o444)
    opened = Neighbours(tmp_path, rows)
    assert str(path) in Path("/proc/self/maps").read_text()
    opened.groups(rows.answers.numpy()[0], 2)
    assert path.read_bytes() == content


@pytest.fixture
def folder(retriever_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A published retriever with an index of near vectors."""
    folder = Path(shutil.copytree(retriever_folder, tmp_path / "model"))
    monkeypatch.setattr(job_neighbours, "EXACT_ROWS", len(ROWS) - 1)
    job_neighbours.write(folder)
    return folder


def loaded(folder: Path) -> Any:
    return load(folder, "cpu", dtype="auto", max_rows=8, hang_seconds=30)


def test_a_published_index_is_served(folder: Path, retriever_folder: Path) -> None:
    assert find(str(folder), None).revision != find(str(retriever_folder), None).revision
    questions = [row["question"] for row in ROWS if row["question"]] + ["zebra", "How high"]
    found = []
    for one in (folder, retriever_folder):
        engine = loaded(one)
        found.append(engine.index.search(engine.encoder.encode(questions, "query"), [3] * len(questions)))
    assert found[0] == found[1]


def edited(change: Callable[[Any], Any]) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        path = str(folder / job_neighbours.FILE)
        index = faiss.read_index(path)
        faiss.write_index(change(index) or index, path)

    return spoil


def built(answers: Callable[[np.ndarray], np.ndarray], questions: int = 6) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        tensors = {name: one.numpy() for name, one in load_file(folder / "index.safetensors").items()}
        ids = np.array([0, 1, 0, 2, 3, 4, 5])
        made = job_neighbours.build(answers(tensors["answers"]), answers(tensors["questions"][:questions]), ids)
        faiss.write_index(made, str(folder / job_neighbours.FILE))

    return spoil


def cut(folder: Path) -> None:
    path = folder / job_neighbours.FILE
    path.write_bytes(path.read_bytes()[:-100])


def flat(index: Any) -> Any:
    return faiss.IndexFlatIP(index.d)


def other_ids(index: Any) -> Any:
    index.remove_ids(np.array([0]))
    index.add_with_ids(np.eye(1, index.d, dtype=np.float32), np.array([2]))


def other_metric(index: Any) -> Any:
    index.metric_type = faiss.METRIC_L2


FAULTS = [
    (cut, "index.faiss cannot be read"),
    (lambda folder: (folder / "index.faiss").write_bytes(b""), "index.faiss cannot be read"),
    (lambda folder: (folder / "index.faiss").write_bytes(b"x" * 5000), "index.faiss cannot be read"),
    (edited(flat), "index.faiss is a IndexFlatIP, expected an IndexIVFScalarQuantizer"),
    (edited(other_metric), "index.faiss does not compare cosines"),
    (edited(other_ids), "index.faiss names other rows than 6 answers and 6 questions"),
    (built(lambda vectors: vectors[:, :24].copy()), "index.faiss has vectors of 24 numbers, expected 48"),
    (built(lambda vectors: vectors, 5), "index.faiss has 11 vectors, expected 12"),
    (built(lambda vectors: -vectors), "index.faiss was made of other vectors"),
]


@pytest.mark.parametrize(("fault", "says"), FAULTS, ids=[says[:40] for _, says in FAULTS])
def test_an_index_that_does_not_fit_is_refused(fault: Callable[[Path], None], says: str, folder: Path) -> None:
    fault(folder)
    with pytest.raises(ValueError, match=re.escape(says)) as refused:
        loaded(folder)
    assert "\n" not in str(refused.value)


def test_the_server_ends_with_2_and_one_line(folder: Path) -> None:
    cut(folder)
    server = Served(folder)
    server.start()
    assert server.process.wait(100) == 2
    (line,) = [line for line in server.output().splitlines() if "index.faiss cannot be read" in line]
    assert str(folder) in line
    assert "Traceback" not in server.output()


def test_many_rows_without_an_index_are_searched_exactly_and_said_to_be_slow(
    retriever_folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(loading, "MANY_ROWS", len(ROWS) - 1)
    with caplog.at_level(logging.WARNING):
        loaded(retriever_folder)
    (line,) = [record.getMessage() for record in caplog.records if "index.faiss" in record.getMessage()]
    assert re.search(r"compared with all rows, which takes \d+ ms here", line)
