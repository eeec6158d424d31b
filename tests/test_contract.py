"""The house rules: who may import whom, and how long a file may be."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

JOB = Path(__file__).parents[1] / "job"
SERVE = JOB.with_name("serve")
STAGES = {"load", "clean", "dedupe", "split", "base", "encode", "train", "evaluate", "report", "publish", "check"}
JOB_FILES = sorted(JOB.rglob("*.py"))
SERVE_FILES = sorted(SERVE.rglob("*.py"))


def imported(path: Path) -> set[str]:
    """Modules of the job, and top-level packages, that a file imports anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def stages_in(names: set[str]) -> set[str]:
    return {name.split(".")[1] for name in names if name.startswith("job.") and name.split(".")[1] in STAGES}


def test_every_stage_is_there() -> None:
    assert {path.stem for path in JOB_FILES} >= STAGES | {"__main__", "config", "pipeline"}


@pytest.mark.parametrize("path", JOB_FILES, ids=lambda path: path.stem)
def test_imports(path: Path) -> None:
    names = imported(path)
    assert not [name for name in names if name.split(".")[0] == "serve"], "job and serve share nothing"
    if path.stem == "pipeline":
        assert stages_in(names) == STAGES
    else:
        assert stages_in(names) == set(), "only the pipeline knows the stages"


@pytest.mark.parametrize("path", SERVE_FILES, ids=lambda path: path.stem)
def test_the_server_shares_nothing_with_the_job(path: Path) -> None:
    assert not [name for name in imported(path) if name.split(".")[0] == "job"]


@pytest.mark.parametrize("path", SERVE_FILES, ids=lambda path: path.stem)
def test_only_the_engines_files_know_the_inference_library(path: Path) -> None:
    libraries = {name.split(".")[0] for name in imported(path)}
    if path.stem in ("text", "prompt", "belonging"):
        assert "torch" not in libraries, "they know tokenizers and templates"
    elif path.parent.name != "engine":
        assert not libraries & {"torch", "transformers"}


@pytest.mark.parametrize("path", JOB_FILES + SERVE_FILES, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_files_say_what_they_are_and_stay_readable(path: Path) -> None:
    tree = ast.parse(path.read_text())
    assert ast.get_docstring(tree)
    assert len(path.read_text().splitlines()) <= 400
    longest = [node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) and len(node.body) > 30]
    assert longest == []


def test_a_server_that_refuses_or_waits_has_not_loaded_torch() -> None:
    """It would cost the main process two seconds and 200 MB."""
    code = "import sys, serve.__main__, serve.server; print('torch' in sys.modules or 'transformers' in sys.modules)"
    ended = subprocess.run([sys.executable, "-c", code], cwd=JOB.parent, capture_output=True, text=True, check=True)
    assert ended.stdout == "False\n"
