"""The house rules: who may import whom, and how long a file may be."""

import ast
from pathlib import Path

import pytest

JOB = Path(__file__).parents[1] / "job"
STAGES = {"load", "clean", "dedupe", "split", "base", "encode", "train", "evaluate", "report", "publish", "check"}
FILES = sorted(JOB.glob("*.py"))


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
    assert {path.stem for path in FILES} >= STAGES | {"__main__", "config", "pipeline"}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_imports(path: Path) -> None:
    names = imported(path)
    assert not [name for name in names if name.split(".")[0] == "serve"], "job and serve share nothing"
    if path.stem == "pipeline":
        assert stages_in(names) == STAGES
    else:
        assert stages_in(names) == set(), "only the pipeline knows the stages"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_files_say_what_they_are_and_stay_readable(path: Path) -> None:
    tree = ast.parse(path.read_text())
    assert ast.get_docstring(tree)
    assert len(path.read_text().splitlines()) <= 400
    longest = [node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) and len(node.body) > 30]
    assert longest == []
