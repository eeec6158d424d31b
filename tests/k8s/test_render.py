"""k8s/render.py: a config becomes the manifests of its run, or a refusal."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from checkout import ROOT
from manifests import K8S, SCRIPTS, TRAIN, kustomize, walk

from job.errors import ConfigError
from k8s import render


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A folder to work in that holds a run, with the environment's kubectl."""
    monkeypatch.setenv("PATH", SCRIPTS, prepend=os.pathsep)
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "mine" / "first"
    folder.mkdir(parents=True)
    (folder / "asked.csv").write_text("question,answer\nWhat?,That.\n")
    (folder / "run.yaml").write_text("dataset: {file: mine/first/asked.csv}\noutput: runs/first\n")
    return folder


def test_the_example_is_what_is_rendered_without_a_config(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    for name in TRAIN:
        rendered = render.render(Path(render.EXAMPLE, "config.yaml"), name, "-1")
        assert rendered != kustomize(K8S / name)
        assert rendered.replace("name: kickoff-train-1\n", "name: kickoff-train\n") == kustomize(K8S / name)


def test_a_run_can_be_submitted_twice(here: Path) -> None:
    first, again = (list(yaml.safe_load_all(render.render(Path("mine/first/run.yaml"), "train", at))) for at in "12")
    names = [{item["kind"]: item["metadata"]["name"] for item in items} for items in (first, again)]
    assert [name.pop("Job") for name in names] == ["kickoff-train1", "kickoff-train2"]
    assert names[0] == names[1] and set(names[0]) == {"ConfigMap", "PersistentVolumeClaim"}


@pytest.mark.parametrize("name", TRAIN)
def test_render_takes_another_config(here: Path, name: str) -> None:
    text = render.render(Path("mine/first/run.yaml"), name, "-1")
    assert "soccer" not in text
    found = list(yaml.safe_load_all(text))
    (files,) = [item["data"] for item in found if item["kind"] == "ConfigMap"]
    assert files == {path.name: path.read_text() for path in here.iterdir()}
    assert [node["args"] for node in walk(found) if isinstance(node, dict) and "args" in node] == [
        ["run", "mine/first/run.yaml"]
    ]
    mounts = [node for node in walk(found) if isinstance(node, dict) and node.get("name") == "config"]
    assert {"name": "config", "mountPath": "/work/mine/first", "readOnly": True} in mounts


def test_all_files_of_a_run_are_in_the_config_map(here: Path) -> None:
    for name in ("one.jsonl", "two.jsonl", "test.json", "unknown.json"):
        (here / name).write_text("[]")
    sources = "sources: [{file: mine/first/asked.csv}, {file: mine/first/*.jsonl}]"
    (here / "run.yaml").write_text(
        f"dataset: {{{sources}, test: [mine/first/test.json]}}\noutput: runs/first\n"
        "model: {kind: retriever}\nretriever: {unknown: mine/first/unknown.json}\n"
    )
    found = yaml.safe_load_all(render.render(Path("mine/first/run.yaml"), "train", "-1"))
    (files,) = [item["data"] for item in found if item["kind"] == "ConfigMap"]
    assert set(files) == {"run.yaml", "asked.csv", "one.jsonl", "two.jsonl", "test.json", "unknown.json"}


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        ("dataset: {file: mine/other.csv}\noutput: runs/a", "names mine/other.csv, expected a file beside it"),
        ("dataset: {file: mine/first/gone.csv}\noutput: runs/a", "names mine/first/gone.csv"),
        (
            "dataset: {file: mine/first/big.csv}\noutput: runs/a",
            "a ConfigMap takes 1,000,000; upload the data set to the Hub",
        ),
        ("dataset: {name: a/b}\noutput: elsewhere", "output: found elsewhere, expected runs/..."),
        ("dataset: {name: a/b}\noutput: runs/../b", "output: found runs/../b, expected runs/..."),
        ("dataset: {name: a/b}\noutput: runs/a\npublish: {folder: out}", "publish.folder: found out"),
        (
            "dataset: {name: a/b}\noutput: runs/a\nmodel: {base: ./base}",
            "model.base: ./base is a folder of this machine",
        ),
        (
            "dataset: {name: a/b}\noutput: runs/a\nmodel: {ground: ./mine}",
            "model.ground: ./mine is a folder of this machine",
        ),
        ("dataset: {name: a/b}\noutput: runs/a\ntrain: {epoch: 3}", "run.yaml:3:9: train.epoch: unknown key"),
    ],
)
def test_a_run_that_cannot_work_in_a_pod_is_refused(here: Path, config: str, reason: str) -> None:
    (here / "big.csv").write_text("x" * 1_000_001)
    (here / "run.yaml").write_text(config)
    with pytest.raises(ConfigError, match=re.escape(reason)):
        render.render(Path("mine/first/run.yaml"), "train", "")


@pytest.mark.parametrize("path", ["run.yaml", "mine/../mine/first/run.yaml", "/{here}/run.yaml", "runs/x/run.yaml"])
def test_a_config_needs_a_folder_that_can_be_mounted(here: Path, path: str) -> None:
    for folder in (Path(), Path("runs/x")):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "run.yaml").write_text("dataset: {name: a/b}\noutput: runs/a\n")
    with pytest.raises(ConfigError, match="a folder of its own"):
        render.render(Path(path.format(here=here)), "train", "")


def test_the_command_line(here: Path) -> None:
    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, K8S / "render.py", *arguments]
        env = {**os.environ, "PYTHONPATH": str(ROOT)}
        return subprocess.run(command, env=env, capture_output=True, text=True, timeout=60)

    done = run("mine/first/run.yaml")
    assert done.returncode == 0 and not done.stderr
    assert re.search(r"^  name: kickoff-train-\d{6}-\d{6}$", done.stdout, re.MULTILINE)
    refused = run("mine/first/run.yaml", "trian")
    assert (refused.returncode, refused.stdout) == (2, "")
    assert (
        refused.stderr.startswith("error: overlay: found trian, expected one of serve, ")
        and "train-cpu" in refused.stderr
    )
