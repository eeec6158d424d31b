"""Every block of code and every command on the pages is run or parsed, each by the tool that it is for."""

import argparse
import importlib
import json
import re
import shutil
import subprocess
import sysconfig
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from checkout import ROOT
from command_line import fresh_job, job
from handbook import PAGES, Block, blocks, commands, inline
from served import Served
from tiny import ROWS
from typer.main import get_command

from job.config.read import load

MAKEFILE = (ROOT / "Makefile").read_text()
ADDRESS = "http://127.0.0.1:8000"
QUESTION = ROWS[1]["question"]
OWN = next(block.text for block in blocks("yaml") if block.page == "README.md")
"""The config for a reader's own data, which the pages call mine.yaml."""
CONFIGS = [block for block in blocks("yaml") if "resources:" not in block.text]
KINDS = {"sh", "console", "yaml", "python", "text"}


def typed(block: Block) -> str:
    """What a reader types: of a console only what stands behind the prompt."""
    if block.kind == "sh":
        return block.text
    return "\n".join(line[2:] for line in block.text.splitlines() if line.startswith("$ "))


SHELL = blocks("sh", "console")
COMMANDS = sorted(
    {tuple(command) for block in SHELL for command in commands(typed(block))}
    | {
        tuple(command)
        for page in PAGES
        for code in inline(page)
        if re.match(r"([A-Z_]+=\S+ )?(make|python|kubectl|docker) \S", code)
        for command in commands(code)
    }
)


def read_make(words: list[str]) -> None:
    targets = set(re.findall(r"^([a-z0-9-]+):", MAKEFILE, re.MULTILINE))
    for word in words:
        name, given, _ = word.partition("=")
        assert re.search(rf"^{name} +\?=|\$\({name}\)", MAKEFILE, re.MULTILINE) if given else word in targets, word


def read_python(words: list[str]) -> None:
    if words[0] == "-c":
        compile(words[1], "-c", "exec")
    elif words[0] == "-m":
        MODULES[words[1].partition(".")[0] if words[1].startswith("bench") else words[1]](words[1:])
    else:
        assert (ROOT / words[0]).is_file()


def read_job(words: list[str]) -> None:
    """`words` from `job` on. The config is loaded with the overrides; `explain` and `compare` take run folders."""
    from job.__main__ import app

    command, *rest = words[1:] or ["run"]
    assert command in get_command(app).commands  # type: ignore[attr-defined]
    if command in ("explain", "compare"):
        get_command(app).commands[command].make_context(command, list(rest))  # type: ignore[attr-defined]
    elif rest:
        with tempfile.TemporaryDirectory() as folder:
            load(config_named(rest[0], Path(folder)), rest[1:])


def config_named(name: str, folder: Path) -> Path:
    """A file of the repository; CONFIG stands for any, mine.yaml for the reader's own."""
    if name == "mine.yaml":
        (folder / name).write_text(OWN)
        return folder / name
    return ROOT / ("examples/soccer/offline.yaml" if name == "CONFIG" else name)


def read_launch(words: list[str]) -> None:
    from torch.distributed.run import get_args_parser

    arguments: argparse.Namespace = get_args_parser().parse_args(words[1:] or ["-m", "job"])
    assert arguments.module and arguments.training_script == "job"
    read_job(["job", *arguments.training_script_args])


def read_serve(words: list[str]) -> None:
    from serve.__main__ import app

    get_command(app).make_context("serve", words[1:]).close()


def read_bench(words: list[str]) -> None:
    """Its options are those of the module's one command."""
    module = importlib.import_module(words[0])
    text = Path(str(module.__file__)).read_text()
    for option in (word for word in words[1:] if word.startswith("--")):
        assert re.search(rf"^ +{option[2:].replace('-', '_')}: Annotated\[", text, re.MULTILINE), option


def read_pytest(words: list[str]) -> None:
    assert all((ROOT / word).exists() for word in words if word.startswith("tests/"))


DEPTH = {"config": 2, "create": 2, "secret": 3}
"""How many words name a command of kubectl's, by the last but one of them."""


def read_kubectl(words: list[str]) -> None:
    """kubectl's own help knows the command, and its options."""
    tool = f"{sysconfig.get_path('scripts')}/kubectl"
    options = [word.partition("=")[0] for word in words if word.startswith("-") and word != "-"]
    verbs = [word for word in words if not word.startswith("-")][: DEPTH.get(words[1], DEPTH.get(words[0], 1))]
    said = "".join(
        subprocess.run([tool, *asked], capture_output=True, text=True, timeout=60).stdout
        for asked in ([*verbs, "--help"], ["options"])
    )
    assert f"kubectl {' '.join(verbs)}" in said
    for option in options:
        assert re.search(rf"^ +(-\w, )?{option}[ =]|^ +{option}, ", said, re.MULTILINE), option


def read_docker(words: list[str]) -> None:
    version = re.findall(r"^VERSION \?= (\S+)", MAKEFILE, re.MULTILINE)[0]
    assert words[0] in ("run", "stop")
    assert (
        words[0] == "stop" or "--gpus" in words or f"kickoff-serve:{version}" in words or words[1] == "--stop-timeout"
    )


def read_curl(words: list[str]) -> None:
    from serve.http.schema import PredictRequest

    if "-d" in words:
        PredictRequest.model_validate_json(words[words.index("-d") + 1])


def known(words: list[str]) -> None:
    """A shell's own command."""


READERS: dict[str, Callable[[list[str]], None]] = {
    "make": read_make,
    "python": read_python,
    ".venv/bin/python": read_python,
    "kubectl": read_kubectl,
    "docker": read_docker,
    "curl": read_curl,
    "printf": known,
    ".": known,
}
MODULES: dict[str, Callable[[list[str]], None]] = {
    "job": read_job,
    "job.launch": read_launch,
    "serve": read_serve,
    "bench": read_bench,
    "pytest": read_pytest,
    "http.server": known,
}


@pytest.mark.parametrize("block", blocks(), ids=str)
def test_every_block_has_a_known_kind(block: Block) -> None:
    assert block.kind in KINDS


@pytest.mark.parametrize("block", SHELL, ids=str)
def test_a_shell_reads_every_block(block: Block) -> None:
    done = subprocess.run(["bash", "-n"], input=typed(block), capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_command_is_valid(command: tuple[str, ...]) -> None:
    READERS[command[0]](list(command[1:]))


@pytest.mark.parametrize("block", CONFIGS, ids=str)
def test_every_config_is_valid(block: Block, tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(block.text)
    load(path, [])


@pytest.mark.parametrize("block", [block for block in blocks("yaml") if block not in CONFIGS], ids=str)
def test_every_overlay_uses_existing_parts(block: Block) -> None:
    content = yaml.safe_load(block.text)
    for place in content["resources"] + content["components"]:
        assert (ROOT / "k8s" / "mine" / place / "kustomization.yaml").resolve().exists(), place


@pytest.mark.parametrize("block", blocks("python"), ids=str)
def test_every_program_runs(
    block: Block, server: Served, published: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the address and the folder of the tests in the place of the demo's."""
    text = block.text.replace(ADDRESS, server.url).replace("runs/soccer-published", str(published))
    exec(compile(text, str(block), "exec"), {})
    assert capsys.readouterr().out.strip()


def test_every_question_to_the_server_is_answered(server: Served) -> None:
    asked = [list(command) for command in COMMANDS if command[0] == "curl"]
    assert asked
    for words in asked:
        command = [word.replace(ADDRESS, server.url) for word in words]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        assert json.loads(done.stdout)["answer"] is not None, done.stderr


def test_the_five_lines_make_a_model(tiny_base: Path, tmp_path: Path) -> None:
    assert len(OWN.splitlines()) == 5
    rows = "".join(f'"{row["question"]}","{row["answer"]}"\n' for row in ROWS)
    (tmp_path / "questions.csv").write_text("question,answer\n" + rows)
    (tmp_path / "mine.yaml").write_text(OWN)
    base = [
        f"model.base={tiny_base}",
        "model.max_length=64",
        "model.max_new_tokens=8",
        "train.epochs=1",
        "evaluate.gate=off",
    ]
    done = fresh_job("run", "mine.yaml", *base, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "runs/mine-published/model.safetensors").exists()
    assert (tmp_path / "runs/mine/rejected.jsonl").exists()


ERRORS = {
    # the first words of the error on the page: the command, and the config that it is given
    "mine.yaml:5:3: train.learning_rate": (
        "prepare",
        "dataset:\n  file: rows.csv\ntrain:\n  epoch: 3\n  learning_rate: fast\n",
    ),
    "rows.csv: cannot tell which columns to read": ("prepare", "dataset: {file: rows.csv}\n"),
    "none.csv: no such file": ("prepare", "dataset: {file: none.csv}\n"),
    "model.base: HF_HUB_OFFLINE is set": (
        "run",
        "dataset: {file: rows.csv, question: title, answer: body}\nmodel: {base: nowhere/nothing}\n",
    ),
    "publish.repo is me/x": (
        "run",
        "dataset: {file: rows.csv, question: title, answer: body}\npublish: {repo: me/x}\n",
    ),
    "train.device: expected a GPU": ("run", "dataset: {file: rows.csv}\ntrain: {device: gpu}\n"),
}


@pytest.mark.parametrize("error", ERRORS)
def test_the_errors_equal_those_on_the_page(error: str, tmp_path: Path) -> None:
    if error.startswith("train.device") and shutil.which("nvidia-smi"):
        pytest.skip("a GPU is here")
    (shown,) = (block.text for block in blocks("text") if block.page == "troubleshooting.md" and error in block.text)
    command, config = ERRORS[error]
    (tmp_path / "rows.csv").write_text("title,body\nWhat is DNS?,A naming system.\n")
    (tmp_path / "mine.yaml").write_text(config)
    environment = {"HF_HUB_OFFLINE": "1", "HF_TOKEN": "", "HF_HUB_CACHE": "/root/.cache/huggingface/hub"}
    done = job(command, "mine.yaml", cwd=tmp_path, **environment)
    assert done.stdout.endswith(shown), done.stdout + done.stderr
