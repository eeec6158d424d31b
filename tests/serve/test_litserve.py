"""Every name of LitServe that the server uses: all are public, and this is the whole list."""

import ast
import inspect
import tomllib
from collections.abc import Iterator

import litserve as ls
from checkout import ROOT
from litserve.loops import LitLoop
from packaging.specifiers import SpecifierSet

from serve.worker import AnswerAPI, EngineLoop

FILES = sorted((ROOT / "serve").rglob("*.py"))
IMPORTED = {"litserve", "litserve.loops.LitLoop"}
OF_THE_MODULE = {"LitAPI", "LitServer"}
OF_A_SERVER = {"app", "inference_workers", "run", "uvicorn_graceful_timeout"}
GIVEN_TO_A_SERVER = {"accelerator", "devices", "workers_per_device", "restart_workers", "timeout"}
GIVEN_TO_AN_API = {"stream", "loop"}
GIVEN_TO_RUN = {"host", "port", "num_api_servers", "log_level", "generate_client_file"}
GIVEN_TO_UVICORN = {"fd", "log_config", "access_log", "http", "timeout_keep_alive", "server_header"}


def nodes() -> Iterator[ast.AST]:
    for path in FILES:
        yield from ast.walk(ast.parse(path.read_text()))


def attributes_of(name: str) -> set[str]:
    """What is asked of, or given to, an object of this name, also with getattr."""
    found = set()
    for node in nodes():
        if isinstance(node, ast.Attribute) and named(node.value) == name:
            found.add(node.attr)
        if isinstance(node, ast.Call) and named(node.func) in ("getattr", "setattr") and named(node.args[0]) == name:
            found.add(ast.literal_eval(node.args[1]))
    return found


def named(node: ast.AST) -> str:
    return ast.unparse(node) if isinstance(node, ast.Name | ast.Attribute) else ""


def arguments_of(call: str) -> set[str]:
    return {
        keyword.arg or "**"
        for node in nodes()
        if isinstance(node, ast.Call) and ast.unparse(node.func) == call
        for keyword in node.keywords
    }


def defined_by(cls: type) -> set[str]:
    (tree,) = ast.parse(inspect.getsource(cls)).body
    assert isinstance(tree, ast.ClassDef)
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


def test_what_is_imported() -> None:
    modules = {a.name for node in nodes() if isinstance(node, ast.Import) for a in node.names if "litserve" in a.name}
    names = {
        f"{node.module}.{a.name}"
        for node in nodes()
        if isinstance(node, ast.ImportFrom) and "litserve" in (node.module or "")
        for a in node.names
    }
    assert modules | names == IMPORTED
    assert attributes_of("ls") == OF_THE_MODULE


def test_the_attributes_of_litserver_that_are_used() -> None:
    assert attributes_of("self.litserve") == OF_A_SERVER
    assert arguments_of("ls.LitServer") == GIVEN_TO_A_SERVER <= inspect.signature(ls.LitServer).parameters.keys()
    assert arguments_of("self.litserve.run") == GIVEN_TO_RUN | GIVEN_TO_UVICORN
    assert inspect.signature(ls.LitServer.run).parameters.keys() >= GIVEN_TO_RUN | {"kwargs"}
    assert not [node for node in nodes() if isinstance(node, ast.ClassDef) and "LitServer" in ast.unparse(node)[:80]]


def test_the_methods_of_litserve_that_are_overridden() -> None:
    assert defined_by(AnswerAPI) == {"__init__", "setup"}
    assert defined_by(EngineLoop) == {"run"}
    assert arguments_of("super().__init__") & GIVEN_TO_AN_API == GIVEN_TO_AN_API
    given = [*inspect.signature(LitLoop.run).parameters][:4]
    assert given == [*inspect.signature(EngineLoop.run).parameters][:4]
    # EngineLoop keeps nothing in itself that LitServe's own loops could keep there too
    assert "self" not in {node.value.id for node in ast.walk(ast.parse(inspect.getsource(EngineLoop)))
                          if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)}  # fmt: skip


def test_no_name_is_private() -> None:
    lists = IMPORTED | OF_THE_MODULE | OF_A_SERVER | GIVEN_TO_A_SERVER | GIVEN_TO_AN_API | GIVEN_TO_RUN
    assert not [name for name in lists if any(part.startswith("_") for part in name.split("."))]


def test_the_versions_are_bounded() -> None:
    """0.3 takes the arguments away that it calls deprecated; 0.2.17 is the first with restart_workers."""
    needed = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]["serve"]
    (versions,) = [SpecifierSet(one.removeprefix("litserve")) for one in needed if one.startswith("litserve")]
    assert versions.contains(ls.__version__)
    assert not versions.contains("0.3.0") and not versions.contains("0.2.16"), "it has no restart_workers"
    (oldest,) = [one.version for one in versions if one.operator == ">="]
    listed = (ROOT / "tests" / "clients" / "litserve.txt").read_text().splitlines()
    assert f"litserve=={oldest}" in listed, "test_oldest_litserve.py runs the server on it"
