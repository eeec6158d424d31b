"""Whole runs in this process, on a tiny model: what is done, what is not done again, what is refused."""

import json
from pathlib import Path
from typing import Any

import pytest
from command_line import job
from configs import MakeConfig
from hub_clients import TOKEN
from hub_server import HubServer
from tiny import ROWS

from job import check, pipeline, prepare
from job.config.read import load
from job.errors import ConfigError, DataError, GateRefused, Interrupted, PublishError
from job.training.step import Learner


def read(config: Any, name: str) -> Any:
    return json.loads((Path(config.output) / name).read_text())


def test_from_the_hub_to_the_hub(hub: HubServer, tiny_base: Path, tmp_path: Path) -> None:
    """In a process of its own, since datasets reads the Hub's address once, when it is imported."""
    lines = "".join(json.dumps({"prompt": row["question"], "completion": row["answer"]}) + "\n" for row in ROWS)
    data_sha = hub.add_repo("datasets", "ada/rows", {"train.jsonl": lines.encode()}, private=True)
    base_sha = hub.add_repo("models", "ada/tiny", tiny_base, private=True)
    path = tmp_path / "config.yaml"
    path.write_text(
        "dataset: {name: ada/rows}\n"
        "model: {base: ada/tiny, max_length: 64, max_new_tokens: 12}\n"
        "train: {epochs: 2, learning_rate: 3e-3, precision: fp32}\n"
        f"publish: {{repo: ada/sums}}\noutput: {tmp_path}/run\n"
    )
    environment = {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "home"), "HF_HUB_DISABLE_XET": "1"}
    done = job("run", path, HF_TOKEN=TOKEN, **environment)
    assert done.returncode == 0, done.stdout + done.stderr
    commit = hub.commits("models", "ada/sums")[0]
    card = commit.files["README.md"].decode()
    assert f"published ada/sums@{commit.sha}" in done.stdout.splitlines()[-1]
    assert "prompt -> completion" in done.stdout
    assert data_sha in card
    assert f"ada/tiny@{base_sha}" in card
    told = [path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()]
    told += [*commit.files.values(), done.stdout.encode(), done.stderr.encode()]
    assert not [text for text in told if TOKEN.encode() in text]


def test_several_data_sets_of_the_hub_with_weights(hub: HubServer, tmp_path: Path) -> None:
    sources = {"sums": range(40), "products": range(20)}
    revisions = {}
    for name, numbers in sources.items():
        rows = [{"prompt": f"What are the {name} of {n}?", "completion": f"The {name}: {n}."} for n in numbers]
        content = "".join(json.dumps(row) + "\n" for row in rows).encode()
        revisions[f"ada/{name}"] = hub.add_repo("datasets", f"ada/{name}", {"train.jsonl": content})
    (tmp_path / "own.jsonl").write_text(json.dumps({"question": "What is two plus two?", "answer": "Four."}))
    path = tmp_path / "config.yaml"
    path.write_text(
        "dataset:\n  sources:\n    - {name: ada/sums, weight: 0.25}\n    - {name: ada/products}\n"
        f"    - {{file: {tmp_path}/own.jsonl}}\n"
        f"dedupe: {{near: false}}\noutput: {tmp_path}/run\n"
    )
    done = job("prepare", path, HF_ENDPOINT=hub.url, HF_HOME=str(tmp_path / "home"), HF_HUB_DISABLE_XET="1")
    assert done.returncode == 0, done.stdout + done.stderr
    facts = json.loads((tmp_path / "run" / "data.json").read_text())
    assert {source["source"]: source.get("revision") for source in facts["sources"][:2]} == revisions
    assert [source["rows"] for source in facts["sources"]] == [10, 20, 1]
    assert [source.get("not_drawn") for source in facts["sources"]] == [30, None, None]
    assert (facts["train"] + facts["test"], facts["rejected"]) == (31, 0)
    assert "load: 10 rows of ada/sums, 30 not drawn, prompt -> completion" in done.stdout


def test_every_row_is_accounted_for(make_config: MakeConfig, data_file: Path) -> None:
    rows: list[Any] = [*ROWS, ROWS[0], {"question": "Only a question?"}, {"question": 5, "answer": "five"}, "no row"]
    rows += [
        {"question": "WHAT is 2 plus 2", "answer": "Four."},
        {"question": "Long?", "answer": " ".join(map(chr, range(0x4E00, 0x4E00 + 200)))},
    ]
    data_file.write_text(json.dumps(rows))
    config = make_config()
    pipeline.run(config)
    facts = read(config, "data.json")
    rejected = [json.loads(line) for line in (Path(config.output) / "rejected.jsonl").read_text().splitlines()]
    assert facts["rows"] == len(rows) == facts["train"] + facts["test"] + facts["rejected"]
    assert facts["rejected_by_stage"] == {"load": 3, "encode": 1, "dedupe": 2}
    assert [row["where"].split()[-1] for row in rejected] == ["42", "43", "44", "46", "41", "45"]
    assert rejected[4]["reason"] == "asks the same as rows.json row 1"
    assert rejected[5]["question"] == "WHAT is 2 plus 2", "as it was, not as it was cleaned"


def test_a_finished_run_is_not_done_again(make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    config = make_config()
    pipeline.run(config)
    before = (Path(config.output) / "model" / "model.safetensors").stat().st_mtime_ns
    for stage in ("model.base.fetch", "data.load.load", "training.train.train", "evaluation.evaluate.evaluate"):
        monkeypatch.setattr(f"job.{stage}", None)
    pipeline.run(config)
    assert (Path(config.output) / "model" / "model.safetensors").stat().st_mtime_ns == before


def test_an_interrupted_run_resumes(make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = make_config(output=make_config().output + "-whole")
    pipeline.run(whole)
    broken = make_config()
    step = Learner.step
    monkeypatch.setattr(Learner, "step", lambda self, rows, stop, save: step(self, rows, self.done == 2, save))
    with pytest.raises(Interrupted, match="stopped at step 3"):
        pipeline.run(broken)
    monkeypatch.setattr(Learner, "step", step)
    pipeline.run(broken)
    weights = [(Path(run.output) / "model" / "model.safetensors").read_bytes() for run in (whole, broken)]
    assert weights[0] == weights[1]


def test_trained_work_is_not_mixed_with_another_config(make_config: MakeConfig, data_file: Path) -> None:
    config = make_config()
    pipeline.run(config)
    with pytest.raises(ConfigError, match=r"train.learning_rate was 0.003 and is 0.001; seed was 42 and is 7"):
        pipeline.run(make_config(train={"learning_rate": 1e-3}, seed=7))
    data_file.write_text(json.dumps(ROWS[:20]))
    with pytest.raises(DataError, match="rows.json changed"):
        pipeline.run(config)


def test_before_anything_is_trained_the_config_may_change(make_config: MakeConfig, data_file: Path) -> None:
    data_file.write_text(json.dumps([{"question": "What?", "answer": "is " * 500}]))
    with pytest.raises(DataError, match="no row is left to train on"):
        pipeline.run(make_config())
    data_file.write_text(json.dumps(ROWS))
    pipeline.run(make_config(train={"epochs": 1}))


def test_run_yaml_gives_the_same_model(make_config: MakeConfig) -> None:
    config = make_config()
    pipeline.run(config)
    again = load(Path(config.output) / "run.yaml", [f"output={config.output}-again"])
    pipeline.run(again)
    weights = [(Path(run.output) / "model" / "model.safetensors").read_bytes() for run in (config, again)]
    assert weights[0] == weights[1]


def test_the_gate_refuses_and_another_gate_publishes(make_config: MakeConfig, tmp_path: Path) -> None:
    there = {"folder": str(tmp_path / "there")}
    strict = make_config(evaluate={"gate": "f1", "gate_threshold": 1.0}, publish=there)
    with pytest.raises(GateRefused, match="f1 must be above the threshold 1"):
        pipeline.run(strict)
    assert not (tmp_path / "there").exists()
    assert "refused" in (Path(strict.output) / "report.html").read_text()
    pipeline.publish_only(make_config(evaluate={"gate": "off"}, publish=there))
    assert "off: published whatever the metrics say" in (tmp_path / "there" / "README.md").read_text()


def test_publish_repeats_a_failed_push(hub: HubServer, make_config: MakeConfig) -> None:
    hub.fail("POST", r"/commit/", times=99, status=500)
    config = make_config(publish={"repo": "ada/sums"})
    with pytest.raises(PublishError, match="python -m job publish .*run.yaml"):
        pipeline.run(config)
    hub.clear_faults()
    assert "published ada/sums@" in pipeline.publish_only(config)
    assert len(hub.commits("models", "ada/sums")) == 2


@pytest.mark.parametrize("count", [1, 2, 5, 10, 50])
def test_tiny_data(count: int, make_config: MakeConfig, data_file: Path, tmp_path: Path) -> None:
    rows = [{"question": f"What is {n} plus {n}?", "answer": f"It is {2 * n}."} for n in range(count)]
    data_file.write_text(json.dumps(rows))
    config = make_config(train={"epochs": 1}, evaluate={"gate": "off"}, publish={"folder": str(tmp_path / "there")})
    pipeline.run(config)
    facts = read(config, "data.json")
    assert facts["train"] + facts["test"] == count
    assert (facts["test"] == 0) == (count == 1)
    assert (tmp_path / "there" / "model.safetensors").exists()


@pytest.mark.parametrize("gate", ["loss", "f1", "ended"])
def test_without_a_test_row_the_gate_refuses_before_the_training(
    gate: str, make_config: MakeConfig, data_file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data_file.write_text(json.dumps(ROWS[:1]))
    config = make_config(evaluate={"gate": gate})
    for again in (pipeline.run, pipeline.run, check.check):  # also where the data are prepared already
        with pytest.raises(DataError, match=f"evaluate.gate is {gate}.*dataset.test, or set evaluate.gate=off"):
            again(config)
    assert not (Path(config.output) / "model").exists()
    assert not (Path(config.output) / "tensorboard").exists(), "no step was trained"
    assert "neither publish.repo nor publish.folder" in pipeline.run(make_config(evaluate={"gate": "off"}))
    assert "no row is left for testing" in caplog.text


def test_test_rows_that_are_all_rejected_are_no_test_rows(make_config: MakeConfig, tmp_path: Path) -> None:
    (tmp_path / "test.json").write_text(json.dumps([{"question": "Long?", "answer": "plus " * 200}]))
    with pytest.raises(DataError, match="found 40 rows to train and 1 rejected") as caught:
        pipeline.run(make_config(dataset={"test": str(tmp_path / "test.json")}))
    assert caught.value.exit_code == 3


def test_a_test_file_replaces_the_split(make_config: MakeConfig, tmp_path: Path) -> None:
    asked = [{"question": "2 plus 2 is what?", "answer": "4."}, {"question": "What is 3 plus 3?", "answer": "6."}]
    (tmp_path / "test.json").write_text(json.dumps(asked))
    config = make_config(dataset={"test": str(tmp_path / "test.json")})
    pipeline.run(config)
    facts = read(config, "data.json")
    assert (facts["train"], facts["test"], facts["rejected"]) == (39, 2, 1), "the training row asked there is dropped"


def test_check_trains_nothing_and_leaves_the_report_of_the_data(
    make_config: MakeConfig, caplog: pytest.LogCaptureFixture
) -> None:
    config = make_config()
    with caplog.at_level("INFO"):
        last = check.check(config)
    assert [path.name for path in Path(config.output).iterdir()] == ["check.html"]
    shown = (Path(config.output) / "check.html").read_text()
    assert "<mark>" in shown
    assert f"<title>{Path(config.output).name} " in shown
    assert "34 rows to train, 6 to test, 10 steps" in last
    assert caplog.text.count(">>>") == 3
    assert "Answer:\n>>>" in caplog.text


def test_prepare_needs_no_model_and_repeats_itself_to_the_byte(make_config: MakeConfig, data_file: Path) -> None:
    offside = {"question": "What does the offside rule say in soccer?", "answer": "Stay behind the last defender."}
    misspelt = {**offside, "question": "In soccer, waht does the offside rule say?"}
    data_file.write_text(json.dumps([*ROWS, ROWS[0], {"question": 5, "answer": "five"}, offside, misspelt]))
    written = []
    for name in ("first", "second"):
        config = make_config(output=make_config().output + name, model={"base": "nobody/nothing"})
        assert "44 rows in = 35 to train + 6 to test + 3 rejected" in prepare.prepare_only(config)
        written.append([(Path(config.output) / file).read_bytes() for file in ("data.json", "rejected.jsonl")])
    assert written[0] == written[1]
    assert b"nearly repeats" in written[0][1]
    assert "Rejected" in (Path(config.output) / "report.html").read_text()


def test_check_refuses_a_warm_up_longer_than_the_run(make_config: MakeConfig) -> None:
    with pytest.raises(ConfigError, match="warmup_steps"):
        check.check(make_config(train={"warmup_steps": 10}))


def test_evaluate_alone_measures_again(make_config: MakeConfig) -> None:
    config = make_config()
    with pytest.raises(DataError, match="holds no trained model"):
        pipeline.evaluate_only(config)
    pipeline.run(config)
    (Path(config.output) / "metrics.json").unlink()
    assert "loss" in pipeline.evaluate_only(config)
    assert read(config, "metrics.json")["model"]["rows"] == 6
