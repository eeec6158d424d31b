"""What a later call may change in a run that has begun, what it may not, and what run.yaml says of revisions."""

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
from tiny import ROWS

from job import pipeline, prepare
from job.config.read import load
from job.config.schema import Config
from job.data import split
from job.data.local_files import local_data
from job.errors import ConfigError, DataError, Interrupted
from job.run.folder import RunFolder
from job.training.learner import Learner


def claim(config: Config) -> RunFolder:
    folder = RunFolder(config)
    folder.path.mkdir(parents=True, exist_ok=True)
    folder.open(local_data(config.dataset, folder.finished_request()))
    return folder


def begun(config: Config) -> RunFolder:
    """A run folder with a checkpoint, of which only the name matters here."""
    folder = claim(config)
    checkpoint = folder / "checkpoints/step-00000007"
    checkpoint.mkdir(parents=True)
    (checkpoint / "complete.json").write_text("{}")
    return folder


def weights(config: Config) -> bytes:
    return (Path(config.output) / "model/model.safetensors").read_bytes()


HARMLESS: list[dict[str, Any]] = [
    {"train": {"save_steps": 7}},
    {"train": {"save_total_limit": 9}},
    {"train": {"logging_steps": 3}},
    {"train": {"device": "cpu"}},
    {"train": {"precision": "auto"}},
    {"train": {"wandb_project": "soccer"}},
    {"train": {"batch_size": 4, "gradient_accumulation_steps": 2}},
    {"train": {"batch_size": 1, "gradient_accumulation_steps": 8}},
    {"model": {"max_new_tokens": 20}},
    {"publish": {"repo": "ada/soccer", "tag": "v1", "license": "mit"}},
    {"evaluate": {"generate_rows": 3, "batch_size": 2, "gate": "off"}},
    {"model": {"revision": "main"}},
]
DECIDING: list[tuple[dict[str, Any], str]] = [
    ({"train": {"epochs": 3}}, "train.epochs was 2 and is 3"),
    ({"train": {"lr_scheduler": "cosine"}}, "train.lr_scheduler was 'linear' and is 'cosine'"),
    ({"clean": {"lowercase": True}}, "clean.lowercase was False and is True"),
    ({"dedupe": {"near": False}}, "dedupe.near was True and is False"),
    ({"split": {"test_size": 0.2}}, "split.test_size was 0.15 and is 0.2"),
    ({"model": {"max_length": 32}}, "model.max_length was 64 and is 32"),
    ({"model": {"revision": "v2"}}, "model.revision was None and is 'v2'"),
    ({"seed": 7}, "seed was 42 and is 7"),
]


@pytest.mark.parametrize("sections", HARMLESS, ids=str)
def test_what_cannot_alter_finished_work_may_change(sections: dict[str, Any], make_config: MakeConfig) -> None:
    begun(make_config())
    claim(make_config(**sections))
    assert load(Path(make_config().output) / "run.yaml") == make_config(**sections)
    claim(make_config())


@pytest.mark.parametrize(("sections", "told"), DECIDING, ids=lambda value: str(value))
def test_what_would_alter_it_is_refused_with_two_ways_out(
    sections: dict[str, Any], told: str, make_config: MakeConfig
) -> None:
    folder = begun(make_config())
    with pytest.raises(ConfigError) as caught:
        claim(make_config(**sections))
    assert told in str(caught.value)
    assert "choose another output" in str(caught.value)
    if "revision" not in told:
        assert f"model.base={folder.path}/checkpoints/step-00000007 output=" in str(caught.value)
    assert load(folder / "run.yaml") == make_config(), "it stays as it was"
    claim(make_config())


def test_a_checkpoint_that_was_never_finished_does_not_count(make_config: MakeConfig) -> None:
    folder = claim(make_config())
    partial = folder / "checkpoints/step-00000500.partial"
    partial.mkdir(parents=True)
    (partial / "complete.json").write_text("{}")
    (folder / "checkpoints/step-00000499").mkdir()
    claim(make_config(train={"learning_rate": 1e-4}))
    (folder / "checkpoints/step-00000499/complete.json").write_text("{}")
    with pytest.raises(ConfigError, match="train.learning_rate was .*checkpoints/step-00000499 output"):
        claim(make_config())


def test_the_way_out_names_the_newest_whole_checkpoint_or_the_model(make_config: MakeConfig) -> None:
    folder = begun(make_config())
    (folder / "checkpoints/step-00000009").mkdir()
    with pytest.raises(ConfigError, match="checkpoints/step-00000007 output"):
        claim(make_config(seed=7))
    (folder / "model").mkdir()
    with pytest.raises(ConfigError, match=f"model.base={folder.path}/model output"):
        claim(make_config(seed=7))
    with pytest.raises(ConfigError) as caught:
        claim(make_config(model={"base": "somebody/else"}))
    assert "model.base=" not in str(caught.value), "its weights are not what is wanted"


def test_another_batch_is_for_the_checkpoint_to_judge_until_the_model_is_finished(make_config: MakeConfig) -> None:
    """With other processes the product has to change; only the checkpoint knows how many there were."""
    folder = begun(make_config())
    for sections in ({"batch_size": 4}, {"gradient_accumulation_steps": 2}):
        claim(make_config(train=sections))
    claim(make_config())
    (folder / "model").mkdir()
    claim(make_config(train={"batch_size": 4, "gradient_accumulation_steps": 2}))
    claim(make_config())
    with pytest.raises(ConfigError, match="train.batch_size was 8 and is 4"):
        claim(make_config(train={"batch_size": 4}))


def test_data_that_moved_is_the_same_data(make_config: MakeConfig, data_file: Path, tmp_path: Path) -> None:
    begun(make_config())
    moved = data_file.rename(tmp_path / "moved.json")
    claim(make_config(dataset={"file": str(moved)}))
    for glob in (str(tmp_path / "mov*.json"), [str(moved)]):
        claim(make_config(dataset={"file": glob}))
    (tmp_path / "moved.json").write_text(json.dumps(ROWS[:20]))
    with pytest.raises(DataError, match="moved.json changed; choose another output .* model.base="):
        claim(make_config(dataset={"file": [str(moved)]}))


def other_kind(folder: Path) -> dict[str, Any]:
    return {"file": str(shutil.copy(folder / "rows.json", folder / "rows.jsonl"))}


def one_more(folder: Path) -> dict[str, Any]:
    return {"file": [str(folder / "rows.json"), str(shutil.copy(folder / "rows.json", folder / "again.json"))]}


def as_test_rows(folder: Path) -> dict[str, Any]:
    return {"test": str(shutil.copy(folder / "rows.json", folder / "test.json"))}


def as_sources(folder: Path) -> dict[str, Any]:
    return {"file": None, "sources": [{"file": str(folder / "rows.json")}]}


@pytest.mark.parametrize("change", [other_kind, one_more, as_test_rows, as_sources])
def test_the_same_bytes_in_another_part_are_other_data(
    change: Callable[[Path], dict[str, Any]], make_config: MakeConfig, tmp_path: Path
) -> None:
    begun(make_config())
    with pytest.raises(ConfigError, match=r"dataset\.\w+"):
        claim(make_config(dataset=change(tmp_path)))


def test_train_and_test_rows_exchanged_are_other_data(make_config: MakeConfig, tmp_path: Path) -> None:
    (tmp_path / "test.json").write_text(json.dumps(ROWS[:5]))
    first, second = str(tmp_path / "rows.json"), str(tmp_path / "test.json")
    begun(make_config(dataset={"file": first, "test": second}))
    with pytest.raises(ConfigError, match=r"dataset\.file was .*; dataset\.test was"):
        claim(make_config(dataset={"file": second, "test": first}))


def test_a_glob_that_finds_one_more_file(make_config: MakeConfig, tmp_path: Path) -> None:
    config = make_config(dataset={"file": str(tmp_path / "*.json")})
    begun(config)
    shutil.copy(tmp_path / "rows.json", tmp_path / "same.json")
    with pytest.raises(DataError, match="same.json changed"):
        claim(config)


def test_a_begun_run_goes_on_with_what_may_change_to_the_same_weights(
    make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch, data_file: Path, tmp_path: Path
) -> None:
    whole = make_config(output=str(tmp_path / "whole"))
    pipeline.run(whole)
    step = Learner.step
    monkeypatch.setattr(Learner, "step", lambda self, rows, stop, save: step(self, rows, self.done == 2, save))
    with pytest.raises(Interrupted):
        pipeline.run(make_config())
    monkeypatch.setattr(Learner, "step", step)
    (tmp_path / "run").rename(tmp_path / "elsewhere")
    moved = data_file.rename(tmp_path / "moved.json")
    changed = make_config(
        output=str(tmp_path / "elsewhere"),
        dataset={"file": str(moved)},
        train={"save_steps": 1, "save_total_limit": 1},
        model={"max_new_tokens": 5},
    )
    pipeline.run(changed)
    assert weights(changed) == weights(whole)
    for name in ("base", "model"):
        assert json.loads((tmp_path / "elsewhere" / name / "generation_config.json").read_text())["max_new_tokens"] == 5


def test_longer_answers_after_the_run_are_measured_and_published_anew(make_config: MakeConfig, tmp_path: Path) -> None:
    there = {"folder": str(tmp_path / "there")}
    pipeline.run(make_config(publish=there, model={"max_new_tokens": 2}))
    before = json.loads((tmp_path / "run/answers.json").read_text())
    config = make_config(publish=there, model={"max_new_tokens": 12})
    pipeline.publish_only(config)
    after = json.loads((tmp_path / "run/answers.json").read_text())
    assert before["model"] != after["model"]
    assert json.loads((tmp_path / "there/generation_config.json").read_text())["max_new_tokens"] == 12
    assert load(tmp_path / "there/run.yaml").model.max_new_tokens == 12
    with pytest.raises(ConfigError, match="max_new_tokens: found 128, .* reads at most 128 tokens"):
        pipeline.run(make_config(publish=there, model={"max_new_tokens": 128}))


def prepared(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that ended between its data and its training."""
    train = pipeline.train.train
    monkeypatch.setattr(pipeline.train, "train", stop)
    with pytest.raises(KeyboardInterrupt):
        pipeline.run(config)
    monkeypatch.setattr(pipeline.train, "train", train)


def stop(*arguments: Any) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("sections", "anew"),
    [
        ({"train": {"epochs": 1}}, set()),
        ({"evaluate": {"gate": "off"}}, set()),
        ({"clean": {"lowercase": True}}, {"data"}),
        ({"dataset": {"question": "question", "answer": "answer"}}, {"data"}),
        ({"seed": 7}, {"data"}),
        ({"model": {"max_length": 32}}, {"data", "base"}),
        ({"model": {"revision": "v2"}}, {"data", "base"}),
        ({"model": {"max_new_tokens": 7}}, set()),
    ],
    # a set has no order, and each process of the tests must call a test by the same name
    ids=lambda value: str(value) if isinstance(value, dict) else " and ".join(sorted(value)) or "nothing",
)
def test_before_training_only_what_is_out_of_date_is_done_again(
    sections: dict[str, Any], anew: set[str], make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepared(make_config(), monkeypatch)
    folder = claim(make_config(**sections))
    there = {"base": (folder / "base/base.json").exists(), "data": (folder / "data.json").exists()}
    assert {name for name, kept in there.items() if not kept} == anew
    assert (folder / "encoded").exists() == ("data" not in anew)
    assert load(folder / "run.yaml") == make_config(**sections)


def test_a_run_folder_of_a_version_that_is_not_known(make_config: MakeConfig) -> None:
    folder = begun(make_config())
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
    folder = begun(make_config())
    (folder / "asked.json").unlink()
    claim(make_config(train={"save_steps": 3}))
    (folder / "asked.json").unlink()
    with pytest.raises(ConfigError, match="seed was 42 and is 7"):
        claim(make_config(seed=7))


@pytest.mark.parametrize(
    ("name", "remedy"),
    [
        ("data.json", "remove it, and it is made anew"),
        ("metrics.json", "remove it, and it is made anew"),
        ("asked.json", "remove it, and it is made anew"),
        ("base/base.json", "remove it, and it is made anew"),
        ("phases.json", "remove it, and it is made anew"),
        ("training.json", "restore it, or choose another output"),
    ],
)
@pytest.mark.parametrize("content", ["", '{"rows": 4', "[]", "\x00\x00"], ids=["empty", "cut", "list", "zeroes"])
def test_a_damaged_file_is_one_clear_line(name: str, remedy: str, content: str, make_config: MakeConfig) -> None:
    folder = begun(make_config())
    (folder / "base").mkdir()
    (folder / name).write_text(content)
    with pytest.raises(ConfigError) as caught:
        claim(make_config())
    assert str(caught.value).startswith(f"output: {folder / name} is damaged (")
    assert str(caught.value).endswith(remedy)
    assert len(str(caught.value).splitlines()) == 1


def test_facts_that_another_version_wrote_are_one_clear_line(make_config: MakeConfig) -> None:
    folder = begun(make_config())
    (folder / "data.json").write_text('{"rows": "many"}')
    with pytest.raises(ConfigError) as caught:
        claim(make_config())
    where = (
        f"output: {folder.path}/data.json is of another version of Kickoff, or damaged (rows: Input should be a valid"
    )
    assert str(caught.value).startswith(where)
    assert str(caught.value).endswith("; remove it, and it is made anew")
    assert len(str(caught.value).splitlines()) == 1
    (folder / "data.json").unlink()
    asked = json.loads((folder / "asked.json").read_text())
    (folder / "asked.json").write_text(json.dumps({**asked, "version": 2}))
    with pytest.raises(ConfigError) as caught:
        claim(make_config())
    assert str(caught.value) == (
        f"output: {folder.path}/asked.json is of another version of Kickoff (facts 2, expected 1); choose another "
        "output, or finish that run with the version that began it"
    )


def test_a_folder_from_before_asked_json_said_what_was_resolved(make_config: MakeConfig) -> None:
    folder = begun(make_config())
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


def test_what_is_removed_as_told_is_made_anew(make_config: MakeConfig) -> None:
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


def test_a_begun_run_needs_its_raw_data(make_config: MakeConfig, data_file: Path) -> None:
    begun(make_config())
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


def test_what_is_made_anew_is_made_of_the_commits_of_then(hub: HubServer, tiny_base: Path, tmp_path: Path) -> None:
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
        with pytest.raises(DataError, match="holds a model of other rows: .* train and test rows"):
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
