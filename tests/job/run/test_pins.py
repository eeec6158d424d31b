"""What run.yaml says of revisions, and that what is made anew is made of the same data and base."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from command_line import job
from configs import MakeConfig
from datasets import load_from_disk
from hub_clients import TOKEN
from hub_server import HubServer
from run_folders import claim, start_run
from tiny import ROWS

from job import pipeline, prepare
from job.config.read import load
from job.config.schema import Config
from job.data import split
from job.errors import DataError


def test_run_yaml_pins_the_revisions(hub: HubServer, tiny_base: Path, tmp_path: Path) -> None:
    """In processes of their own, since datasets reads the Hub's address once, when it is imported."""
    lines = "".join(json.dumps(row) + "\n" for row in ROWS).encode()
    data = [hub.add_repo("datasets", f"ada/{name}", {"train.jsonl": lines}) for name in ("rows", "more")]
    base = hub.add_repo("models", "ada/tiny", tiny_base)
    path = tmp_path / "config.yaml"
    (tmp_path / "own.json").write_text(json.dumps([{"question": "Who?", "answer": "Me."}]))
    sources = f"[{{name: ada/rows}}, {{file: {tmp_path}/own.json}}, {{name: ada/more, revision: main}}]"
    path.write_text(
        f"dataset: {{sources: {sources}}}\n"
        "model: {base: ada/tiny, max_length: 64, max_new_tokens: 12}\n"
        "train: {epochs: 1, learning_rate: 3e-3, precision: fp32}\nevaluate: {gate: 'off'}\n"
        f"publish: {{folder: {tmp_path}/there}}\noutput: {tmp_path}/run\n"
    )
    environment = {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "home"), "HF_HUB_DISABLE_XET": "1"}
    done = job("run", path, HF_TOKEN=TOKEN, **environment)
    assert done.returncode == 0, done.stdout + done.stderr
    for place in ("run", "run/model", "there"):
        config = load(tmp_path / place / "run.yaml")
        assert config.model.revision == base
        assert [source.revision for source in config.dataset.sources] == [data[0], None, data[1]]
    for name in ("rows", "more"):  # both move on, and the run stays what it was
        hub.repos["datasets", f"ada/{name}"].commit("main", {"train.jsonl": b"{}"}, "another commit")
    hub.repos["models", "ada/tiny"].commit("main", {}, "another commit")
    for again in (path, tmp_path / "run/run.yaml", path):
        repeated = job("publish", again, HF_TOKEN=TOKEN, **environment)
        assert repeated.returncode == 0, repeated.stdout + repeated.stderr
    refused = job("publish", path, "model.revision=v2", HF_TOKEN=TOKEN, **environment)
    assert "model.revision was None and is 'v2'" in refused.stdout
    rerun = job("run", tmp_path / "run/run.yaml", f"output={tmp_path}/again", HF_TOKEN=TOKEN, **environment)
    assert rerun.returncode == 0, rerun.stdout + rerun.stderr
    tuned = [(tmp_path / name / "model/model.safetensors").read_bytes() for name in ("run", "again")]
    assert tuned[0] == tuned[1]


def test_a_finished_run_needs_its_raw_data_no_more(
    make_config: MakeConfig, data_file: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "rows-2.json").write_text(json.dumps([{"question": "Who?", "answer": "Me."}]))
    there = {"folder": str(tmp_path / "there")}
    config = make_config(dataset={"file": [str(tmp_path / "rows.json"), str(tmp_path / "rows-*.json")]}, publish=there)
    pipeline.run(config)
    asked = (tmp_path / "run/asked.json").read_bytes()
    (tmp_path / "rows-2.json").unlink()
    with caplog.at_level("INFO"):
        pipeline.publish_only(config)
    assert "rows-2.json is no longer there; the model is trained, so it counts as unchanged" in caplog.text
    moved = data_file.rename(tmp_path / "moved.json")
    for call in (pipeline.evaluate_only, pipeline.run):
        call(config)
    assert (tmp_path / "run/asked.json").read_bytes() == asked
    moved.write_text("[]")
    moved.rename(data_file)
    with pytest.raises(DataError, match="rows.json changed"):
        pipeline.publish_only(config)
    with pytest.raises(DataError, match="elsewhere.json: no such file"):
        pipeline.publish_only(make_config(dataset={"file": str(tmp_path / "elsewhere.json")}))


def test_a_started_run_needs_its_raw_data(make_config: MakeConfig, data_file: Path) -> None:
    start_run(make_config())
    data_file.unlink()
    with pytest.raises(DataError, match="no such file"):
        claim(make_config())


def hub_run(hub: HubServer, tiny_base: Path, folder: Path) -> Callable[..., Any]:
    """The config of a run from data and base on the Hub, and how to call the job with it."""
    hub.add_repo("datasets", "ada/rows", {"train.jsonl": as_lines(ROWS)})
    hub.add_repo("models", "ada/tiny", tiny_base)
    path = folder / "config.yaml"
    path.write_text(
        "dataset: {name: ada/rows}\n"
        "model: {base: ada/tiny, max_length: 64, max_new_tokens: 12}\n"
        "train: {epochs: 1, learning_rate: 3e-3, precision: fp32}\nevaluate: {gate: 'off', generate_rows: 0}\n"
        f"publish: {{folder: {folder}/there}}\noutput: {folder}/run\n"
    )
    environment = {"HF_ENDPOINT": hub.url, "HF_HOME": str(folder / "home"), "HF_HUB_DISABLE_XET": "1"}
    return lambda command, *overrides: job(command, path, *overrides, HF_TOKEN=TOKEN, **environment)


def as_lines(rows: list[dict[str, str]]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def test_recreated_files_use_the_original_commits(hub: HubServer, tiny_base: Path, tmp_path: Path) -> None:
    """Else a newer commit would be split anew, and the model tested on rows that it was trained on."""
    call, run = hub_run(hub, tiny_base, tmp_path), tmp_path / "run"
    assert call("run").returncode == 0

    def made() -> list[Any]:
        files = [
            (run / name).read_bytes() for name in ("run.yaml", "base/model.safetensors", "model/model.safetensors")
        ]
        rows = load_from_disk(str(run / "encoded"))
        return [*files, *(rows[part]["question"][:] for part in ("train", "test"))]

    before = made()
    hub.repos["datasets", "ada/rows"].commit("main", {"train.jsonl": as_lines(ROWS[:1:-1])}, "another commit")
    hub.repos["models", "ada/tiny"].commit("main", {}, "another commit")
    for command, removed in (
        ("run", ["data.json"]),
        ("publish", ["data.json", "encoded", "metrics.json"]),
        ("evaluate", ["base", "data.json", "asked.json"]),
    ):
        for name in removed:
            (shutil.rmtree if (run / name).is_dir() else Path.unlink)(run / name)
        done = call(command)
        assert done.returncode == 0, done.stdout + done.stderr
        assert made() == before


def test_before_training_a_newer_commit_is_read(hub: HubServer, tiny_base: Path, tmp_path: Path) -> None:
    """Whoever mends a data set of which no row was left must not be held to the commit that was wrong."""
    call = hub_run(hub, tiny_base, tmp_path)
    hub.repos["datasets", "ada/rows"].commit("main", {"train.jsonl": as_lines([{**ROWS[0], "answer": "?"}])}, "wrong")
    assert call("run").returncode == 3
    newer = hub.repos["datasets", "ada/rows"].commit("main", {"train.jsonl": as_lines(ROWS)}, "mended").sha
    done = call("run")
    assert done.returncode == 0, done.stdout + done.stderr
    assert load(tmp_path / "run/run.yaml").dataset.revision == newer


@pytest.mark.parametrize("command", [pipeline.run, pipeline.evaluate_only, pipeline.publish_only, prepare.prepare_only])
def test_rows_that_the_model_was_not_trained_on_do_not_replace_its_own(
    command: Callable[[Config], str], make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As another version of Kickoff, which splits otherwise, would prepare them."""
    config = make_config()
    pipeline.run(config)
    run = Path(config.output)
    kept = {path: path.read_bytes() for path in run.rglob("encoded/*/*")}
    unchanged = split.split
    monkeypatch.setattr(split, "split", lambda section, seed, *rest: unchanged(section, seed + 1, *rest))
    (run / "data.json").unlink()
    for _ in range(2):
        with pytest.raises(DataError, match="holds a model trained on other rows: .* train and test rows"):
            command(config)
        assert {path: path.read_bytes() for path in run.rglob("encoded/*/*")} == kept
    monkeypatch.setattr(split, "split", unchanged)
    command(config)


def test_another_base_does_not_take_the_place_of_the_one_that_was_trained(
    make_config: MakeConfig, tiny_base: Path, tmp_path: Path
) -> None:
    shutil.copytree(tiny_base, tmp_path / "mine")
    config = make_config(model={"base": str(tmp_path / "mine")})
    pipeline.run(config)
    base = tmp_path / "run/base"
    before = (base / "model.safetensors").read_bytes()
    tuned = tmp_path / "run/model/model.safetensors"
    shutil.copy(tuned, tmp_path / "mine/model.safetensors")
    (base / "base.json").unlink()
    for _ in range(2):
        with pytest.raises(DataError, match="was trained from other weights than .*mine has now"):
            pipeline.run(config)
        assert (base / "model.safetensors").read_bytes() == before
    (tmp_path / "mine/model.safetensors").write_bytes((tiny_base / "model.safetensors").read_bytes())
    pipeline.run(config)
    assert (base / "model.safetensors").read_bytes() == before
