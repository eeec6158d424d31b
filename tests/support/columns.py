"""Data files with columns beside the pair, and the line of a refusal."""

import json
from pathlib import Path
from typing import Any

import pytest

from job.config.schema import DatasetSection
from job.data.load import load
from job.errors import DataError, Exit
from job.run.facts import Source

WORDS = ["lamp", "kettle", "bridge", "violin", "garden", "engine", "castle", "river", "basket", "window"]


def read(folder: Path, rows: list[dict[str, Any]], **section: Any) -> list[Source]:
    """The facts of the source."""
    (folder / "qa.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return load(DatasetSection(file=str(folder / "qa.jsonl"), **section), folder, 42)[3]


def refused(folder: Path, rows: list[dict[str, Any]], **section: Any) -> str:
    with pytest.raises(DataError) as caught:
        read(folder, rows, **section)
    assert caught.value.exit_code is Exit.DATA
    assert "\n" not in str(caught.value)
    return str(caught.value)


def same_question(**beside: list[Any]) -> list[dict[str, Any]]:
    """Ten rows that ask the same and are answered differently, with columns beside."""
    rows = [{"question": "Translate it.", "answer": f"{word} in French"} for word in WORDS]
    for name, values in beside.items():
        for row, value in zip(rows, values, strict=True):
            row[name] = value
    return rows


def other_questions(**beside: Any) -> list[dict[str, Any]]:
    """Ten rows that ask different things."""
    return [{"question": f"What is a {word}?", "answer": f"It is a {word} thing.", **beside} for word in WORDS]
