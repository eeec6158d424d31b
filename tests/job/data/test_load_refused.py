"""Load: files that cannot be read are refused in one line."""

import json
from pathlib import Path

import pytest
from loading import PAIR, put, read, refused


def test_truncated_json_names_line_and_column(tmp_path: Path) -> None:
    message = refused(put(tmp_path, "qa.json", '[{"question": "a",\n  "answer": "b'))
    assert message.startswith("qa.json:2:13: not valid JSON: Unterminated string")
    assert "was the file cut off?" in message
    message = refused(put(tmp_path, "qa.jsonl", json.dumps(PAIR) + '\n{"question": "a'))
    assert message.startswith("qa.jsonl:2: not valid JSON: Unterminated string")


@pytest.mark.parametrize(("text", "kind"), [('{"question": "a"}', "an object"), ("null", "null"), ('"a"', "text")])
def test_one_json_value_instead_of_an_array(tmp_path: Path, text: str, kind: str) -> None:
    assert refused(put(tmp_path, "qa.json", text)).startswith(f"qa.json: found {kind}, expected an array of rows")


def test_jsonl_named_json(tmp_path: Path) -> None:
    message = refused(put(tmp_path, "qa.json", f"{json.dumps(PAIR)}\n{json.dumps(PAIR)}\n"))
    assert message.startswith("qa.json:2:1: not valid JSON: Extra data")
    assert ".jsonl format: rename the file" in message


@pytest.mark.parametrize("name", ["qa.json", "qa.jsonl"])
@pytest.mark.parametrize("value", ["9" * 5000, "[" * 200_000])
def test_json_that_python_cannot_hold(tmp_path: Path, name: str, value: str) -> None:
    assert "nested too deeply, or a number" in refused(put(tmp_path, name, f'[{{"question": {value}'))


@pytest.mark.parametrize("text", ["", "\n", "question,answer\n", "\ufeff"])
@pytest.mark.parametrize("name", ["qa.csv", "qa.jsonl", "qa.json", "qa.parquet"])
def test_file_without_a_row(tmp_path: Path, name: str, text: str) -> None:
    message = refused(put(tmp_path, name, text))
    assert message.startswith(name)
    if name == "qa.csv":
        assert "has no rows" in message
    if name == "qa.json" and not text:
        assert "the file is empty" in message


def test_empty_array_and_header_alone(tmp_path: Path) -> None:
    assert "has no rows" in refused(put(tmp_path, "qa.json", []))
    assert "has no rows" in refused(put(tmp_path, "qa.csv", "question,answer"))


@pytest.mark.parametrize("name", ["folder", "folder.json"])
def test_folder(tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir()
    assert refused(tmp_path / name).startswith(f"{name}: is a folder; expected a file: .json")


@pytest.mark.parametrize("name", ["no.json", "no.txt", "no/where.csv"])
def test_missing_file(tmp_path: Path, name: str) -> None:
    assert "no such file" in refused(tmp_path / name)


@pytest.mark.parametrize(("name", "found"), [("qa.txt", ".txt"), ("qa", "no"), ("qa.txt.gz", ".txt")])
def test_unknown_extension(tmp_path: Path, name: str, found: str) -> None:
    message = refused(put(tmp_path, name, "x"))
    assert message.startswith(f"{name}: found {found} extension, expected one of .json, .jsonl, .csv, .parquet, which")


@pytest.mark.parametrize("encoding", ["latin-1", "utf-16"])
@pytest.mark.parametrize("name", ["qa.json", "qa.jsonl", "qa.csv"])
def test_not_utf_8(tmp_path: Path, name: str, encoding: str) -> None:
    text = "question,answer\ncafé,b\n" if name.endswith("csv") else '[{"question": "café", "answer": "b"}]'
    assert f"{name}: not UTF-8 text (byte " in refused(put(tmp_path, name, text.encode(encoding)))


def test_not_parquet(tmp_path: Path) -> None:
    assert refused(put(tmp_path, "qa.parquet", "xxx")).startswith("qa.parquet: not a Parquet file: ")


def test_csv_of_another_shape(tmp_path: Path) -> None:
    message = refused(put(tmp_path, "qa.csv", "question,answer\na,b\nc,d,e\n"))
    assert "qa.csv: not valid CSV with the delimiter ','" in message
    assert "line 3" in message
    assert "EOF inside string" in refused(put(tmp_path, "qa.csv", 'question,answer\na,"b\n'))


def test_csv_with_a_field_too_many_does_not_shift_the_columns(tmp_path: Path) -> None:
    message = refused(put(tmp_path, "qa.csv", "question,answer\nWho?,me, you\nWhat?,this, that\n"))
    assert "more fields than the first line; quote texts that contain" in message


def test_csv_with_a_field_too_few(tmp_path: Path) -> None:
    rows, rejected, _ = read(put(tmp_path, "qa.csv", "question,answer\na,b\nc\n"))
    assert (len(rows), rejected[0].where, rejected[0].shown) == (1, "qa.csv row 2", ("c", ""))
