"""A run folder of another version, with a damaged file or without one."""

import json
import shutil
from pathlib import Path

import pytest
from configs import MakeConfig
from run_folders import claim, start_run, weights

from job import pipeline
from job.config.read import load
from job.errors import ConfigError


def test_a_run_folder_of_a_version_that_is_not_known(make_config: MakeConfig) -> None:
    folder = start_run(make_config())
    (folder / "asked.json").unlink()
    text = (folder / "run.yaml").read_text()
    (folder / "run.yaml").write_text(text.replace("seed:", "packing: true\nspeed: 3\nseed:"))
    with pytest.raises(ConfigError, match="another version of Kickoff") as caught:
        claim(make_config())
    assert "packing: unknown key" in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1
    shutil.rmtree(folder / "checkpoints")
    claim(make_config())
    assert load(folder / "run.yaml") == make_config(), "nothing was trained yet"


def test_a_run_folder_of_the_version_before(make_config: MakeConfig) -> None:
    folder = start_run(make_config())
    (folder / "asked.json").unlink()
    claim(make_config(train={"save_steps": 3}))
    (folder / "asked.json").unlink()
    with pytest.raises(ConfigError, match="seed was 42 and is 7"):
        claim(make_config(seed=7))


@pytest.mark.parametrize(
    ("name", "remedy"),
    [
        ("data.json", "remove it, and it is created again"),
        ("metrics.json", "remove it, and it is created again"),
        ("asked.json", "remove it, and it is created again"),
        ("base/base.json", "remove it, and it is created again"),
        ("phases.json", "remove it, and it is created again"),
        ("training.json", "restore it, or choose another output"),
    ],
)
@pytest.mark.parametrize("content", ["", '{"rows": 4', "[]", "\x00\x00"], ids=["empty", "cut", "list", "zeroes"])
def test_a_damaged_file_is_one_clear_line(name: str, remedy: str, content: str, make_config: MakeConfig) -> None:
    folder = start_run(make_config())
    (folder / "base").mkdir()
    (folder / name).write_text(content)
    with pytest.raises(ConfigError) as caught:
        claim(make_config())
    assert str(caught.value).startswith(f"output: {folder / name} is damaged (")
    assert str(caught.value).endswith(remedy)
    assert len(str(caught.value).splitlines()) == 1


def test_facts_that_another_version_wrote_are_one_clear_line(make_config: MakeConfig) -> None:
    folder = start_run(make_config())
    (folder / "data.json").write_text('{"rows": "many"}')
    with pytest.raises(ConfigError) as caught:
        claim(make_config())
    where = (
        f"output: {folder.path}/data.json is from another version of Kickoff, or damaged (rows: Input should be a valid"
    )
    assert str(caught.value).startswith(where)
    assert str(caught.value).endswith("; remove it, and it is created again")
    assert len(str(caught.value).splitlines()) == 1
    (folder / "data.json").unlink()
    asked = json.loads((folder / "asked.json").read_text())
    (folder / "asked.json").write_text(json.dumps({**asked, "version": 2}))
    with pytest.raises(ConfigError) as caught:
        claim(make_config())
    assert str(caught.value) == (
        f"output: {folder.path}/asked.json is from another version of Kickoff (facts 2, expected 1); choose another "
        "output, or finish that run with the version that started it"
    )


def test_a_folder_from_before_asked_json_said_what_was_resolved(make_config: MakeConfig) -> None:
    folder = start_run(make_config())
    asked = json.loads((folder / "asked.json").read_text())
    commit = "ab" * 20
    whole = (folder / "run.yaml").read_text()
    (folder / "run.yaml").write_text(
        whole.replace("  revision: null\n  gguf_file", f"  revision: {commit}\n  gguf_file")
    )
    assert load(folder / "run.yaml").model.revision == commit
    (folder / "asked.json").write_text(json.dumps({"config": asked["config"], "files": asked["files"]}))
    claim(make_config(train={"save_steps": 3}))
    again = json.loads((folder / "asked.json").read_text())
    assert (again["version"], again["resolved"]["config"]["model"]["revision"]) == (1, commit)
    assert load(folder / "run.yaml").model.revision == commit, "it is still what the run was made of"
    with pytest.raises(ConfigError, match="seed was 42 and is 7"):
        claim(make_config(seed=7))


def test_files_removed_as_advised_are_recreated(make_config: MakeConfig) -> None:
    config = make_config()
    pipeline.run(config)
    before = weights(config)
    for name in ("data.json", "metrics.json", "asked.json", "base/base.json"):
        (Path(config.output) / name).write_text("{")
        with pytest.raises(ConfigError, match="is damaged"):
            pipeline.run(config)
        (Path(config.output) / name).unlink()
        pipeline.run(config)
    assert weights(config) == before
