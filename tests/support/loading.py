"""Loading of files that a test writes: the pairs, what was set aside, and the line of a refusal."""

import json
import tempfile
from pathlib import Path
from typing import Any

import pytest

from job.config.schema import DatasetSection
from job.data.load import load
from job.errors import DataError, Exit
from job.run.facts import Source
from job.run.row_facts import Rejection

Loaded = tuple[list[dict[str, Any]], list[Rejection], Source]
PAIR = {"question": "What is DNS?", "answer": "A naming system."}


def put(folder: Path, name: str, content: str | bytes | list[Any]) -> Path:
    """Write a file: bytes as they are, text as UTF-8, rows as JSON."""
    content = json.dumps(content) if isinstance(content, list) else content
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def read(path: Path, **section: Any) -> Loaded:
    with tempfile.TemporaryDirectory() as folder:
        rows, _, rejected, (facts,) = load(DatasetSection(file=str(path), **section), Path(folder), 42)
    assert len(rows) + len(rejected) == facts.rows
    # the rejected rows are written as JSON in UTF-8
    json.dumps(list(map(vars, rejected)), ensure_ascii=False).encode()
    return list(rows), rejected, facts


def refused(path: Path, **section: Any) -> str:
    with pytest.raises(DataError) as caught:
        read(path, **section)
    assert caught.value.exit_code is Exit.DATA
    return str(caught.value).replace(f"{path.parent}/", "")


def pairs(rows: list[dict[str, Any]]) -> list[tuple[str, str]]:
    return [(row["question"], row["answer"]) for row in rows]
