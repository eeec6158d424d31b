"""The house rules that import-linter (`make check`) does not hold: what a file may know, and how long it may be."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest
from checkout import ROOT

JOB = ROOT / "job"
SERVE = JOB.with_name("serve")
JOB_FILES = sorted(JOB.rglob("*.py"))
SERVE_FILES = sorted(SERVE.rglob("*.py"))
TEST_FILES = sorted((ROOT / "tests").rglob("*.py"))
LIGHT = ("files", "handover", "request")
"""Files of serve/retriever that the main process and the HTTP process use, too."""
UNTYPED = {
    "config/read.py": 1,  # what pydantic makes of the config
    "data/clean/clean.py": 1,  # a row of datasets
    "explain.py": 3,  # a row of datasets, and of rejected.jsonl
    "data/ledger.py": 1,  # a row of datasets, and of rejected.jsonl
    "evaluation/measure.py": 2,  # what pydantic makes of a section
    "model/base.py": 1,  # options of from_pretrained
    "model/files.py": 1,  # a JSON file of a base
    "model/probe.py": 1,  # torch's protocol
    "model/weights.py": 1,  # transformers' loading info
    "publishing/paths.py": 1,  # what pydantic makes of the config
    "publishing/preflight.py": 1,  # the Hub's answer
    "run/changes.py": 1,  # what pydantic makes of the config
    "run/checkpoint.py": 6,  # state dicts of torch
    "run/fact_files.py": 1,  # JSON
    "run/facts.py": 5,  # what pydantic makes of the config
    "run/folder.py": 2,  # what pydantic makes of the config
    "training/best.py": 2,  # JSON of a checkpoint
    "training/geometry.py": 2,  # JSON of a checkpoint
    "training/step.py": 3,  # state dicts of torch
    "training/loop.py": 2,  # state dicts of torch
}
"""Places where a library takes or gives a dict of anything. A file that is not named here has none."""


def named(path: Path) -> str:
    return path.relative_to(JOB.parent).as_posix()


def imported(path: Path) -> set[str]:
    """Top-level packages that a file imports anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add(str(node.module).split(".")[0])
    return found


@pytest.mark.parametrize("path", SERVE_FILES, ids=named)
def test_only_the_engines_files_know_the_inference_library(path: Path) -> None:
    libraries = imported(path)
    if path.stem in ("text", "prompt", "compatibility"):
        assert "torch" not in libraries, "they know tokenizers and templates"
    elif path.parent.name != "engine" and (path.parent.name != "retriever" or path.stem in LIGHT):
        assert not libraries & {"torch", "transformers", "sentence_transformers"}


@pytest.mark.parametrize("path", JOB_FILES + SERVE_FILES, ids=named)
def test_files_have_docstrings_and_stay_short(path: Path) -> None:
    tree = ast.parse(path.read_text())
    assert ast.get_docstring(tree)
    assert len(path.read_text().splitlines()) <= 300
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    lengths = {f"{named(path)} {node.name}": (node.end_lineno or 0) - node.lineno + 1 for node in functions}
    assert {name: lines for name, lines in lengths.items() if lines > 50} == {}
    assert [node.name for node in functions if len(node.body) > 30] == []


def test_test_files_say_what_they_test_and_stay_readable() -> None:
    texts = {named(path): path.read_text() for path in TEST_FILES}
    assert len(texts) > 100, "it looks where the tests are"
    assert [name for name, text in texts.items() if not ast.get_docstring(ast.parse(text))] == []
    assert {name: lines for name, text in texts.items() if (lines := len(text.splitlines())) > 300} == {}


def test_no_test_file_imports_another() -> None:
    """What several need lies in tests/support, and fixtures in a conftest.py above them."""
    tests = {path.stem for path in TEST_FILES if path.stem.startswith("test_")} | {"conftest", "tests"}
    assert {named(path): found for path in TEST_FILES if (found := imported(path) & tests)} == {}


def test_the_pipeline_only_orders_the_stages() -> None:
    assert len((JOB / "pipeline.py").read_text().splitlines()) <= 120


@pytest.mark.parametrize("path", JOB_FILES, ids=named)
def test_facts_are_typed(path: Path) -> None:
    assert path.read_text().count("dict[str, Any]") == UNTYPED.get(path.relative_to(JOB).as_posix(), 0)


def test_a_server_that_refuses_or_waits_has_not_loaded_torch() -> None:
    """It would cost the main process two seconds and 200 MB."""
    known = "{'torch', 'transformers', 'sentence_transformers'}"
    code = f"import sys, serve.__main__, serve.server; print(bool({known} & sys.modules.keys()))"
    ended = subprocess.run([sys.executable, "-c", code], cwd=JOB.parent, capture_output=True, text=True, check=True)
    assert ended.stdout == "False\n"
