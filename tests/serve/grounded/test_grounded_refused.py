"""A grounded generator that cannot be served is refused at the start, in one line."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from checkout import ROOT

from serve.repository import Refused, find

Damage = Callable[[Path], object]


@pytest.fixture
def folder(grounded_folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(grounded_folder, tmp_path / "model"))


def write(name: str, content: object) -> Damage:
    return lambda folder: (folder / name).write_text(content if isinstance(content, str) else json.dumps(content))


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (write("grounding.json", "{"), "grounding.json cannot be read"),
        (write("grounding.json", []), "grounding.json has version None, expected 1"),
        (write("grounding.json", {"version": 2, "rows": 3}), "grounding.json has version 2, expected 1"),
        (write("grounding.json", {"version": 1, "rows": 0}), "rows is 0, expected a number from 1 to 20"),
        (lambda folder: shutil.rmtree(folder / "retriever"), "has a grounding.json and no retriever/retriever.json"),
        (lambda folder: (folder / "retriever/answers.parquet").unlink(), "its folder retriever: it lacks answers.parq"),
    ],
)
def test_files_that_do_not_fit_are_refused(damage: Damage, words: str, folder: Path) -> None:
    damage(folder)
    with pytest.raises(Refused, match=words):
        find(str(folder), None)


def test_the_revision_covers_the_retriever(folder: Path) -> None:
    before = find(str(folder), None)
    assert before.is_grounded and not before.is_retriever
    settings = folder / "retriever/retriever.json"
    settings.write_text(settings.read_text().replace("0.7", "0.6"))
    assert find(str(folder), None).revision != before.revision


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (write("chat_template.jinja", "{{ messages[0].content }}"), "its chat template leaves retrieved rows out"),
        (
            lambda folder: shutil.copy(folder / "retriever/answers.parquet", folder / "retriever/index.safetensors"),
            "index.safetensors cannot be read",
        ),
    ],
)
def test_what_loading_shows_ends_the_server_with_one_line(damage: Damage, words: str, folder: Path) -> None:
    damage(folder)
    done = subprocess.run(
        [sys.executable, "-m", "serve", str(folder), "--port", "0"],
        cwd=ROOT, capture_output=True, text=True, timeout=100, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert words in done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
