"""Load: rows that are set aside, each with its reason, and what is told of them."""

import json
from pathlib import Path
from typing import Any

import pytest
from loading import PAIR, pairs, put, read, refused

from job.errors import ConfigError
from job.run.row_facts import Rejection


@pytest.mark.parametrize("row", ["hello", 3, ["a", "b"], None, True])
@pytest.mark.parametrize("name", ["qa.json", "qa.jsonl"])
def test_a_row_that_is_not_an_object_is_refused(tmp_path: Path, name: str, row: object) -> None:
    rows = [PAIR, row, PAIR]
    text = json.dumps(rows) if name.endswith("json") else "\n".join(map(json.dumps, rows))
    kept, rejected, _ = read(put(tmp_path, name, text))
    assert len(kept) == 2
    assert rejected[0].where in ("qa.json row 2", "qa.jsonl line 2")
    assert rejected[0].reason == "the question is missing"


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (3, "is a number, not text"),
        (0.5, "is a number, not text"),
        (False, "is true or false, not text"),
        (["a"], "is a list, not text"),
        ({"a": [1]}, "is an object, not text"),
        (None, "is missing"),
        (float("nan"), "is missing"),
        ("", "is empty"),
        (" \n\t\u00a0", "is empty"),
        ("a\ud800", "contains half of a surrogate pair, which is not a character"),
        (["\udfff"], "is a list, not text"),
        ({"\ud800": "\ud800"}, "is an object, not text"),
    ],
)
@pytest.mark.parametrize("column", ["question", "answer"])
def test_a_value_that_is_not_text_is_rejected(tmp_path: Path, column: str, value: object, reason: str) -> None:
    rows, rejected, _ = read(put(tmp_path, "qa.json", [PAIR, {**PAIR, column: value}, PAIR]))
    assert [row["where"] for row in rows] == ["qa.json row 1", "qa.json row 3"]
    assert len(rejected) == 1
    assert (rejected[0].where, rejected[0].stage) == ("qa.json row 2", "load")
    assert rejected[0].reason == f"the {column} {reason}"


def test_a_row_with_a_missing_key_is_rejected_with_its_other_values(tmp_path: Path) -> None:
    _, rejected, _ = read(put(tmp_path, "qa.json", [PAIR, {"answer": ["\ud800", 1.5, True]}]))
    shown = (None, ["\\ud800", 1.5, True])
    assert rejected == [Rejection("qa.json row 2", "load", "the question is missing", shown=shown)]


def test_whole_surrogate_pair_is_a_character(tmp_path: Path) -> None:
    rows, _, _ = read(put(tmp_path, "qa.json", r'[{"question": "\ud83d\ude00", "answer": "b"}]'))
    assert rows[0]["question"] == "😀"


def test_only_bad_rows_are_no_error_of_load(tmp_path: Path) -> None:
    rows, rejected, facts = read(put(tmp_path, "qa.json", [{"question": 1, "answer": 2}]))
    assert (rows, len(rejected), facts.rows) == ([], 1, 1)


KEY = "AKIA" + "Q3EGZDX5TJN2MPLE"


@pytest.mark.parametrize(
    "row",
    [
        {"question": f"Is {KEY} mine?", "answer": None},
        {"question": f"Is {KEY} mine?", "answer": " "},
        {"question": 5, "answer": f"It is {KEY}"},
        {"question": "q", "answer": [f"It is {KEY}", {"deep": [KEY]}]},
        {"question": "q", "answer": {KEY: "b", "c": f"{KEY[:6]}\u200b{KEY[6:]}"}},
        {"question": f"{KEY} \ud800", "answer": "a"},
    ],
)
def test_a_secret_in_a_rejected_row_is_redacted(tmp_path: Path, row: dict[str, Any]) -> None:
    _, rejected, _ = read(put(tmp_path, "qa.json", [PAIR, row]))
    told = json.dumps(list(map(vars, rejected)))
    assert "[secret]" in told
    assert KEY not in told and KEY[6:] not in told


def test_a_secret_in_a_column_name_is_redacted(tmp_path: Path) -> None:
    message = refused(put(tmp_path, "qa.csv", f"What is it?,It is {KEY}\nWho?,me\n"))
    assert "found 'What is it?', 'It is [secret]', expected question and answer" in message
    with pytest.raises(ConfigError) as caught:
        read(tmp_path / "qa.csv", question="q", answer="a")
    assert KEY not in str(caught.value)
    _, _, facts = read(put(tmp_path, "qb.csv", f"question,answer,{KEY}\na,b,c\n"))
    assert facts.unused == ["[secret]"]


@pytest.mark.parametrize("levels", [60, 300, 900])
@pytest.mark.parametrize("suffix", ["json", "jsonl"])
@pytest.mark.parametrize(("opening", "closing"), [("[", "]"), ('{"a": ', "}")])
def test_a_deeply_nested_value_is_rejected_or_ignored(
    tmp_path: Path, levels: int, suffix: str, opening: str, closing: str
) -> None:
    deep = opening * levels + '"x"' + closing * levels
    rows = [f'{{"question": {deep}, "answer": "a"}}', f'{{"question": "q?", "answer": "a", "extra": {deep}}}']
    text = f"[{', '.join(rows)}]" if suffix == "json" else "\n".join(rows)
    kept, rejected, _ = read(put(tmp_path, f"qa.{suffix}", text))
    assert pairs(kept) == [("q?", "a")]
    assert rejected[0].reason == f"the question is {'a list' if opening == '[' else 'an object'}, not text"
    assert "..." in json.dumps(rejected[0].shown)
