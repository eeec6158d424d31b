"""The questions that no row answers, in each format, and what is wrong with a file of them."""

import gzip
import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from job.data.unknown import read_questions
from job.errors import DataError, Exit

QUESTIONS = ["What is new?", "Who goes there?", "Why, oh why?"]
ROWS = [{"question": question, "note": 1} for question in QUESTIONS]


def write(folder: Path, name: str) -> Path:
    path = folder / name
    table = pd.DataFrame(ROWS)
    if name.endswith(".parquet"):
        table.to_parquet(path)
    elif name.endswith(".csv"):
        table.to_csv(path, index=False)
    elif name.endswith(".jsonl"):
        path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    else:
        text = json.dumps(ROWS)
        path.write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())
    return path


@pytest.mark.parametrize("name", ["a.json", "a.jsonl", "a.csv", "a.parquet", "a.json.gz"])
def test_each_format(name: str, tmp_path: Path) -> None:
    assert read_questions(str(write(tmp_path, name))) == QUESTIONS


def test_each_question_once_in_the_order_of_the_files(tmp_path: Path) -> None:
    write(tmp_path, "b.json")
    (tmp_path / "a.json").write_text(json.dumps([{"question": " Who goes there?\n"}, {"question": "First?"}]))
    expected = ["Who goes there?", "First?", "What is new?", "Why, oh why?"]
    assert read_questions(str(tmp_path / "*.json")) == expected
    assert read_questions([str(tmp_path / "a.json"), str(tmp_path / "b.json")]) == expected


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([{"text": "a?", "note": 1}], "u.json has the columns text, note; expected 'question', with questions that"),
        ([{"question": "a?"}, {"question": None}], "u.json row 2: found null None, expected a question"),
        ([{"question": "a?"}, {"question": 5}], "u.json row 2: found a number 5, expected a question"),
        ([{"question": "  "}, {"question": "a?"}], "u.json row 1: found text '  ', expected a question"),
        ([{"question": "a?"}], "expected at least 2 questions, found 1"),
        ([{"question": "a?"}, {"question": " a? "}], "expected at least 2 questions, found 1"),
        ([], "expected at least 2 questions, found 0"),
        ("no rows", "expected an array of rows"),
    ],
)
def test_what_is_wrong_is_named(rows: Any, words: str, tmp_path: Path) -> None:
    (tmp_path / "u.json").write_text(json.dumps(rows))
    with pytest.raises(DataError) as caught:
        read_questions(str(tmp_path / "u.json"))
    assert words in str(caught.value)
    assert caught.value.exit_code is Exit.DATA


@pytest.mark.parametrize("name", ["missing.json", "missing-*.json"])
def test_a_file_that_is_missing_is_named(name: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="missing"):
        read_questions(str(tmp_path / name))
