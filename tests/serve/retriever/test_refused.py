"""What of a published retriever is refused at the start, in one line."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from safetensors.torch import load_file, save_file
from served import Served
from tiny_retriever import ROWS, encoder, write_rows, write_vectors

from serve.repository import Refused, find
from serve.retriever.files import Threshold, threshold
from serve.retriever.load import load


@pytest.fixture
def folder(retriever_folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(retriever_folder, tmp_path / "model"))


def edit(path: Path, **values: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def mark(**values: Any) -> Callable[[Path], None]:
    return lambda folder: edit(folder / "retriever.json", **values)


def without(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


def module(**values: Any) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        path = folder / "modules.json"
        first, *others = json.loads(path.read_text())
        path.write_text(json.dumps([first, {**others[0], **values}, *others[1:]]))

    return change


def damaged(folder: Path) -> None:
    (folder / "retriever.json").write_text("{")


def only_bin(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def module_as_bin(folder: Path) -> None:
    (folder / "1_Pooling" / "pytorch_model.bin").write_bytes(b"a pickle")


FILES = [
    (damaged, "retriever.json cannot be read"),
    (mark(version=2), "retriever.json has version 2, expected 1"),
    (mark(similarity="dot"), "similarity is 'dot', expected 'cosine'"),
    (mark(threshold="0.7"), "threshold is '0.7', expected a number"),
    (mark(threshold=True), "threshold is True, expected a number"),
    (mark(threshold=float("nan")), "threshold is nan, expected a number"),
    (mark(certain_score=None), "certain_score is None, expected a number"),
    (mark(threshold=1.5), "threshold is 1.5, expected a number from -1 to 1"),
    (mark(unknown_answer=None), "unknown_answer is None, expected a text"),
    (without("answers.parquet"), "it lacks answers.parquet"),
    (without("index.safetensors"), "it lacks index.safetensors"),
    (without("tokenizer.json"), "it lacks tokenizer.json"),
    (without("modules.json"), "it lacks modules.json"),
    (only_bin, "weights as .safetensors (model.safetensors), found only pytorch_model.bin"),
    (module(type="my_module.Pooling"), "names the module 'my_module.Pooling', which is not part of"),
    (module(path="../other"), "names the folder '../other', expected one inside"),
    (module_as_bin, "1_Pooling has its weights as .bin"),
]


@pytest.mark.parametrize(("fault", "says"), FILES, ids=[says[:30] for _, says in FILES])
def test_files_that_are_missing_or_damaged(fault: Callable[[Path], None], says: str, folder: Path) -> None:
    fault(folder)
    with pytest.raises(Refused, match=re.escape(says)) as refused:
        find(str(folder), None)
    assert "\n" not in str(refused.value)


def test_a_module_without_files_is_fine_and_the_revision_is_the_content(folder: Path) -> None:
    found = find(str(folder), None)
    assert found.is_retriever
    assert threshold(folder) == Threshold(0.7, 0.99, "I do not know.")
    shutil.rmtree(folder / "2_Normalize")
    assert find(str(folder), None).revision != found.revision
    edit(folder / "1_Pooling" / "config.json", note=1)
    assert find(str(folder), None).revision != found.revision


def column(**columns: Any) -> Callable[[Path], None]:
    return lambda folder: write_rows(folder, ROWS, **columns)


def tensor(change: Callable[[dict[str, torch.Tensor]], Any]) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        tensors = {name: one.clone() for name, one in load_file(folder / "index.safetensors").items()}
        change(tensors)
        save_file({name: one.contiguous() for name, one in tensors.items()}, folder / "index.safetensors")

    return spoil


def put(name: str, value: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[Path], None]:
    return tensor(lambda tensors: tensors.update({name: value(tensors[name])}))


def at(row: int, value: float) -> Callable[[torch.Tensor], torch.Tensor]:
    def change(vectors: torch.Tensor) -> torch.Tensor:
        vectors[row, 0] = value
        return vectors

    return change


def cut(name: str) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(content[: len(content) // 2])

    return spoil


def another_encoder(folder: Path) -> None:
    texts = [text for row in ROWS for text in row.values() if text]
    write_vectors(folder, encoder(folder.with_name("other"), texts, {}, seed=1), ROWS)


def fewer_words(folder: Path) -> None:
    model = load_file(folder / "model.safetensors")
    name = next(name for name in model if name.endswith("word_embeddings.weight"))
    save_file({**model, name: model[name][:50].clone()}, folder / "model.safetensors", {"format": "pt"})
    edit(folder / "config.json", vocab_size=50)


IDS = [0, 1, 2, 3, 4, 6, 5]
DATA = [
    (column(id=pa.array(IDS, pa.int64())), "row 5 has the id 6, expected 5"),
    (column(id=pa.array(range(7), pa.int32())), "id is int32, expected int64"),
    (column(answer=pa.array([None, *"abcdef"])), "answer has 1 nulls, expected none"),
    (lambda folder: write_rows(folder, ROWS[:5]), "answers is (7, 48), expected a vector for each of the 5 rows"),
    (cut("answers.parquet"), "answers.parquet cannot be read"),
    (cut("index.safetensors"), "index.safetensors cannot be read"),
    (tensor(lambda tensors: tensors.pop("questions")), "index.safetensors lacks questions"),
    (put("answers", lambda vectors: vectors.half()), "answers is float16, expected float32"),
    (put("questions", lambda vectors: vectors[:, :24]), "questions is (6, 24), expected vectors of 48 numbers"),
    (put("question_rows", lambda rows: rows[:3]), "question_rows is (3,), expected (6,)"),
    (put("question_rows", lambda rows: rows + 5), "question_rows names a row outside of the 7 rows"),
    (put("question_rows", lambda rows: rows.clamp(max=3)), "the question of row 3, which answers.parquet lacks"),
    (put("answers", at(2, float("nan"))), "answers 2 holds values that are not finite"),
    (put("rows", at(3, float("inf"))), "rows 3 holds values that are not finite"),
    (put("rows", lambda vectors: vectors[:5].clone()), "rows is (5, 48), expected (7, 48), as answers"),
    (put("questions", at(1, 3.0)), "questions 1 has the length"),
    (another_encoder, "the vectors were made by another encoder"),
    (fewer_words, "and the encoder knows those below 50"),
]


@pytest.mark.parametrize(("fault", "says"), DATA, ids=[says[:40] for _, says in DATA])
def test_data_that_does_not_fit(fault: Callable[[Path], None], says: str, folder: Path) -> None:
    fault(folder)
    find(str(folder), None)  # only the engine reads it
    with pytest.raises(ValueError, match=re.escape(says)) as refused:
        load(folder, "cpu", dtype="auto", max_rows=8, hang_seconds=30)
    assert "\n" not in str(refused.value)


def test_another_number_format_is_refused(folder: Path) -> None:
    with pytest.raises(ValueError, match="dtype: found bfloat16, expected auto or float32"):
        load(folder, "cpu", dtype="bfloat16", max_rows=8, hang_seconds=30)


def test_vectors_of_another_width(folder: Path) -> None:
    def narrow(vectors: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.normalize(vectors[:, :24])

    tensor(lambda all: all.update({name: narrow(all[name]) for name in ("answers", "rows", "questions")}))(folder)
    with pytest.raises(ValueError, match="vectors of 24 numbers, and its encoder makes 48"):
        load(folder, "cpu", dtype="auto", max_rows=8, hang_seconds=30)


@pytest.mark.parametrize(
    ("fault", "says"), [(damaged, "retriever.json cannot be read"), (another_encoder, "made by another encoder")]
)
def test_the_server_ends_with_2_and_one_line(fault: Callable[[Path], None], says: str, folder: Path) -> None:
    fault(folder)
    server = Served(folder)
    server.start()
    assert server.process.wait(100) == 2
    (line,) = [line for line in server.output().splitlines() if says in line]
    assert str(folder) in line
    assert "Traceback" not in server.output()


def test_no_question_is_indexed(folder: Path) -> None:
    rows = [{**row, "question": None} for row in ROWS]
    write_rows(folder, rows)
    vectors = load_file(folder / "index.safetensors")
    nothing = {"questions": torch.zeros(0, 48), "question_rows": torch.zeros(0, dtype=torch.int64)}
    save_file({"answers": vectors["answers"], "rows": vectors["rows"], **nothing}, folder / "index.safetensors")
    engine = load(folder, "cpu", dtype="auto", max_rows=8, hang_seconds=30)
    (hits,) = engine.index.search(engine.encoder.encode([ROWS[4]["answer"]], "document"), [1])
    assert (hits[0].answer, hits[0].question) == (ROWS[4]["answer"], None)
    assert np.isclose(hits[0].score, 1, atol=1e-5)
