"""Load: each file format, and how the columns are found."""

from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from loading import PAIR, pairs, put, read, refused

from job.config.schema import DatasetSection
from job.data.files import fingerprint
from job.data.load import COLUMN_PAIRS, load
from job.data.local_files import local_data
from job.errors import ConfigError, DataError
from job.run.facts import Source
from job.run.row_facts import Rejection


def test_json_array(tmp_path: Path) -> None:
    path = put(tmp_path, "qa.json", [PAIR, {"answer": " b ", "question": "a", "topic": "x"}])
    rows, rejected, facts = read(path)
    assert pairs(rows) == [("What is DNS?", "A naming system."), ("a", " b ")]
    assert [row["where"] for row in rows] == ["qa.json row 1", "qa.json row 2"]
    assert rejected == []
    assert facts == Source(str(path), "question", "answer", ["topic"], 2, fingerprint(path))


def test_jsonl_counts_lines_and_skips_blank_ones(tmp_path: Path) -> None:
    path = put(
        tmp_path, "qa.jsonl", '\ufeff{"question": "a\\u2028", "answer": "b"}\r\n\n{"question": "c", "answer": "d"}'
    )
    rows, _, _ = read(path)
    assert pairs(rows) == [("a\u2028", "b"), ("c", "d")]
    assert [row["where"] for row in rows] == ["qa.jsonl line 1", "qa.jsonl line 3"]


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_csv(tmp_path: Path, delimiter: str, mark: str) -> None:
    lines = ["id;question;answer", '1;a;"b\nc ""d"""', "2;NA;007", "3;null;1,5" if delimiter != "," else "3;null;1.5"]
    text = mark + "\r\n".join(line.replace(";", delimiter) for line in lines)
    rows, rejected, facts = read(put(tmp_path, "qa.csv", text))
    assert pairs(rows)[:2] == [("a", 'b\nc "d"'), ("NA", "007")]  # text stays text: neither missing nor a number
    assert rows[2]["question"] == "null"
    assert (rejected, facts.unused) == ([], ["id"])


def test_parquet(tmp_path: Path) -> None:
    path = tmp_path / "qa.parquet"
    pd.DataFrame({"question": ["a", None], "answer": ["b", "c"], "n": [1, 2]}).to_parquet(path)
    rows, rejected, facts = read(path)
    assert pairs(rows) == [("a", "b")]
    assert rejected[0].reason == "the question is missing"
    assert (rejected[0].where, facts.unused) == ("qa.parquet row 2", ["n"])


def test_parquet_of_nullable_types_and_lists(tmp_path: Path) -> None:
    path = tmp_path / "qa.parquet"
    questions = pd.array(["a", None, "c"], dtype="string")
    pd.DataFrame({"question": questions, "answer": [[1], [2], [3]]}).to_parquet(path)
    assert [row.reason.split(" is ")[0] for row in read(path)[1]] == ["the answer", "the question", "the answer"]
    shown = (None, [2])
    assert read(path)[1][1] == Rejection("qa.parquet row 2", "load", "the question is missing", shown=shown)


def test_parquet_of_numbered_columns(tmp_path: Path) -> None:
    path = tmp_path / "qa.parquet"
    pd.DataFrame({0: ["a"], 1: ["b"]}).to_parquet(path)
    assert pairs(read(path, question="0", answer="1")[0]) == [("a", "b")]


@pytest.mark.parametrize(("question", "answer"), COLUMN_PAIRS)
def test_column_pairs_are_found_whatever_their_case(tmp_path: Path, question: str, answer: str) -> None:
    row = {f" {answer.upper()}": "b", question.title(): "a", "other": "c"}
    rows, _, facts = read(put(tmp_path, "qa.json", [row]))
    assert pairs(rows) == [("a", "b")]
    assert (facts.question, facts.answer) == (question.title(), f" {answer.upper()}")


def test_columns_named_by_the_config(tmp_path: Path) -> None:
    path = put(tmp_path, "qa.json", [{**PAIR, "q": "a", "a": "b"}])
    rows, _, facts = read(path, question="q", answer="a")
    assert pairs(rows) == [("a", "b")]
    assert facts.unused == ["question", "answer"]


def test_named_column_that_is_missing(tmp_path: Path) -> None:
    path = put(tmp_path, "qa.json", [PAIR])
    with pytest.raises(ConfigError, match=r"dataset\.answer: .* has no column 'a'; it has 'question', 'answer'"):
        read(path, question="question", answer="a")


def test_columns_that_cannot_be_told(tmp_path: Path) -> None:
    message = refused(put(tmp_path, "qa.csv", "Frage,Antwort\na,b\n"))
    assert message.startswith(
        "qa.csv: cannot tell which columns to read: found 'Frage', 'Antwort', expected question and answer"
    )
    assert "dataset.question" in message
    assert "is the delimiter one of" in refused(put(tmp_path, "qa.csv", "question:answer\na:b\n"))
    assert "found no columns" in refused(put(tmp_path, "qa.json", ["a", "b"]))


@pytest.mark.parametrize("text", ["a\x00b", "👨\u200d👩\u200d👧", "ما هو التسلل؟", "מה זה?", "cafÃ©", "x" * 1_000_000])
@pytest.mark.parametrize("name", ["qa.json", "qa.jsonl", "qa.csv", "qa.parquet"])
def test_text_passes_unchanged(tmp_path: Path, name: str, text: str) -> None:
    frame = pd.DataFrame({"question": [text], "answer": [text]})
    path = tmp_path / name
    match path.suffix:
        case ".csv":
            frame.to_csv(path, index=False)
        case ".parquet":
            frame.to_parquet(path)
        case suffix:
            frame.to_json(path, orient="records", lines=suffix == ".jsonl", force_ascii=False)
    assert pairs(read(path)[0]) == [(text, text)]


def test_extension_in_capitals(tmp_path: Path) -> None:
    assert len(read(put(tmp_path, "QA.JSON", [PAIR]))[0]) == 1


def test_test_file(tmp_path: Path) -> None:
    (tmp_path / "held").mkdir()
    train = put(tmp_path, "qa.json", [PAIR])
    test = put(tmp_path, "held/qa.json", [{"question": "x", "answer": "y"}])
    section = DatasetSection(file=str(train), test=str(test))
    rows, apart, _, _ = load(section, tmp_path, 42)
    assert apart is not None
    assert apart["where"][0] != rows["where"][0]  # one name, two files: their places differ
    assert (apart["question"][0], rows["id"][0], apart["id"][0]) == ("x", 0, 1)
    named = {"dataset.file": train, "dataset.test": test}
    assert local_data(section) == {key: {str(path): fingerprint(path)} for key, path in named.items()}
    assert load(DatasetSection(file=str(train)), tmp_path, 42)[1] is None


@pytest.mark.parametrize("kind", ["json", "jsonl", "csv", "parquet"])
@pytest.mark.parametrize("packed", ["gz", "zst"])
def test_packed_files(tmp_path: Path, kind: str, packed: str) -> None:
    frame = pd.DataFrame([PAIR, {"question": "é?", "answer": "ü"}])
    path = tmp_path / f"qa.{kind}"
    if kind == "parquet":
        frame.to_parquet(path)
    elif kind == "csv":
        frame.to_csv(path, index=False)
    else:
        frame.to_json(path, orient="records", lines=kind == "jsonl", force_ascii=False)
    target = path.with_name(f"{path.name}.{packed}")
    with pa.CompressedOutputStream(pa.OSFile(str(target), "wb"), {"gz": "gzip", "zst": "zstd"}[packed]) as stream:
        stream.write(path.read_bytes())
    assert pairs(read(target)[0]) == [("What is DNS?", "A naming system."), ("é?", "ü")]


def test_globs_lists_and_groups(tmp_path: Path) -> None:
    for name in ("a", "b"):
        rows = [{"question": f"{name}{n}?", "answer": "x", "topic": n % 3} for n in range(10)]
        put(tmp_path, f"{name}.json", rows)
    both = DatasetSection(file=[str(tmp_path / "*.json"), str(tmp_path / "a.json")])
    rows, _, rejected, facts = load(both, tmp_path, 42, "topic")
    assert ([fact.rows for fact in facts], len(rows), rejected) == ([10, 10], 20, [])
    assert rows["group"][:4] == ["0", "1", "2", "0"]
    with pytest.raises(DataError, match="no file matches"):
        load(DatasetSection(file=str(tmp_path / "*.csv")), tmp_path, 42)
    with pytest.raises(ConfigError, match=r"split\.group: .* has no column 'colour'"):
        load(both, tmp_path, 42, "colour")


def test_only_the_columns_that_are_needed_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "qa.parquet"
    picture = pa.struct({"bytes": pa.binary(), "path": pa.string()})
    rows = {"question": ["a?", "b?"], "answer": ["a", "b"], "topic": ["x", "y"], "url": ["u", "v"], "kin": [[1], [2]]}
    table = pa.table(rows).append_column("photo_of_it", pa.array([{"bytes": b"x"}, None], picture))
    pq.write_table(table, path)
    asked: list[list[str]] = []
    iterate = pq.ParquetFile.iter_batches

    def watched(file: pq.ParquetFile, size: int, columns: list[str]) -> Any:
        asked.append(columns)
        return iterate(file, size, columns=columns)

    monkeypatch.setattr(pq.ParquetFile, "iter_batches", watched)
    kept, _, facts = read(path)
    assert pairs(kept) == [("a?", "a"), ("b?", "b")]
    assert asked == [["question", "answer", "topic", "kin"]]
    assert facts.unused == ["topic", "url", "kin", "photo_of_it"]


def test_fingerprint_follows_the_bytes(tmp_path: Path) -> None:
    first, same, other = (put(tmp_path, name, text) for name, text in (("a", "x"), ("b", "x"), ("c", "y")))
    assert fingerprint(first) == fingerprint(same) != fingerprint(other)
    with pytest.raises(DataError, match="no such file"):
        fingerprint(tmp_path / "no")
