"""Whole runs of a retriever: every command, what is published, where, and what it answers."""

import json
import shutil
from pathlib import Path
from typing import Any

import httpx2
import pytest
from command_line import job
from finding import PAIRS, REWORDED, UNKNOWN, make_config, write_config
from hub_clients import TOKEN
from hub_server import HubServer
from publishing import content
from served import Served

from job import check, pipeline, prepare
from job.errors import DataError, Exit
from job.explain import explain
from job.publishing.contract import MARK, RETRIEVER


def read(folder: Path, name: str) -> Any:
    return json.loads((folder / name).read_text())


@pytest.fixture(scope="module")
def finder(tmp_path_factory: pytest.TempPathFactory, tiny_encoder: Path) -> Path:
    """A folder with a config, its data, the run, and what it published."""
    folder = tmp_path_factory.mktemp("finder")
    config = write_config(folder, tiny_encoder, publish={"folder": f"{folder}/published"})
    done = job("run", config)
    assert (done.returncode, done.stderr) == (Exit.DONE, ""), done.stdout + done.stderr
    (folder / "output.txt").write_text(done.stdout)
    return folder


def test_a_run_says_what_it_did(finder: Path) -> None:
    output = (finder / "output.txt").read_text()
    last = f"done: published {finder}/published; verified: the published copy gives the same answers"
    assert output.splitlines()[-1] == last
    assert "24 rows in = 20 to train + 4 to test + 0 rejected" in output
    for words in ("own answer ranked first", "known told from unknown (AUROC)", "BM25"):
        assert words in output
    for word in ("chat template", "nats", "answer tokens", "generation"):
        assert word not in output


def test_exactly_the_files_of_the_contract_are_published(finder: Path) -> None:
    modules = {module["path"] for module in read(finder / "published", "modules.json") if module["path"]}
    names = {path for path in content(finder / "published") if path.split("/")[0] not in modules}
    assert names - {MARK} == {*RETRIEVER, "sentence_bert_config.json"}
    assert content(finder / "published") == content(finder / "run/model")


def test_no_local_path_and_no_unknown_question_is_published(finder: Path, tiny_encoder: Path) -> None:
    for name, text in content(finder / "published").items():
        for path in (finder, tiny_encoder):
            assert str(path).encode() not in text, name
        assert not [question for question in UNKNOWN if question.encode() in text], name
    assert (finder / "run/run.yaml").read_text().count(str(finder)) == 5


def test_what_is_measured_is_consistent(finder: Path) -> None:
    metrics, answers = read(finder / "run", "metrics.json"), read(finder / "run", "answers.json")
    assert read(finder / "published", "retriever.json")["threshold"] == metrics["model"]["threshold"]
    for name in ("model", "base", "bm25"):
        found = [row["answer"] == row["expected"] for row in answers[name]]
        assert len(found) == len(REWORDED)
        assert metrics[name]["recall_at_1"] == sum(found) / len(found)
        assert metrics[name]["unknown_rows"] == len(UNKNOWN) // 2
    assert metrics["gate"]["metric"] == "mrr_at_10"


def test_the_same_config_gives_the_same_bytes(finder: Path, tiny_encoder: Path, tmp_path: Path) -> None:
    pipeline.run(make_config(finder, tiny_encoder, output=str(tmp_path / "again")))
    first, again = content(finder / "run/model"), content(tmp_path / "again/model")
    assert first.keys() == again.keys()
    others = {name for name in first if first[name] != again[name]}
    assert others <= {"README.md", "run.yaml", MARK}, "they name seconds, output and the folder"


def test_the_server_answers_a_training_question(finder: Path) -> None:
    with Served(finder / "published") as server:
        for question, answer in PAIRS[:3]:
            said = httpx2.post(f"{server.url}/predict", json={"question": question}, timeout=60).json()
            assert said["answer"] == answer


@pytest.mark.parametrize("row", ["rows.json row 3", "test.json row 1"])
def test_a_row_is_explained_in_a_retrievers_words(row: str, finder: Path) -> None:
    told = explain(finder / "run", row)
    assert "of the question, " in told and "of the answer" in told
    assert "prompt" not in told and "generate" not in told
    assert "train     once in every epoch" in told if row.startswith("rows") else "evaluate  tuned" in told


def test_the_report_is_a_retrievers(finder: Path) -> None:
    html = (finder / "run/report.html").read_text()
    for words in ('<th class="number">BM25</th>', "own answer ranked first", "mrr_at_10 must be at least"):
        assert words in html
    for words in ("chat template", "by generation"):
        assert words not in html.split("<pre>")[0]


def test_check_prepare_evaluate_and_publish(finder: Path, tiny_encoder: Path, tmp_path: Path) -> None:
    run = shutil.copytree(finder / "run", tmp_path / "run")
    there = {"output": str(run), "publish": {"folder": str(tmp_path / "again")}}
    config = make_config(finder, tiny_encoder, **there)
    before = content(run / "model")
    assert check.check(config).startswith("ready: 20 rows to train, 4 to test, 6 steps, about 0.")
    assert prepare.prepare_only(config).startswith("prepared: 24 rows in = 20 to train + 4 to test + 0 rejected")
    assert "recall_at_1" in pipeline.evaluate_only(config)
    assert "published" in pipeline.publish_only(config)
    after = content(tmp_path / "again")
    assert {name for name in before if before[name] != after[name]} <= {"README.md", "run.yaml", MARK}


def test_prepare_alone_needs_no_model(tiny_encoder: Path, tmp_path: Path) -> None:
    config = make_config(tmp_path, tiny_encoder, model={"base": "nobody/nothing"})
    assert "20 to train" in prepare.prepare_only(config)


def test_to_the_hub_in_one_commit(hub: HubServer, finder: Path, tiny_encoder: Path, tmp_path: Path) -> None:
    run = shutil.copytree(finder / "run", tmp_path / "run")
    config = make_config(finder, tiny_encoder, output=str(run), publish={"repo": "ada/finder"})
    told = pipeline.publish_only(config)
    newest, created = hub.commits("models", "ada/finder")
    assert f"done: published ada/finder@{newest.sha}; verified" in told
    assert set(RETRIEVER) <= newest.files.keys()
    assert not set(RETRIEVER) & created.files.keys()
    assert TOKEN not in told


@pytest.mark.parametrize("gate", ["auto", "off"])
def test_without_test_rows_only_a_gate_that_is_off_publishes(gate: str, tiny_encoder: Path, tmp_path: Path) -> None:
    made = make_config(
        tmp_path, tiny_encoder, dataset={"test": None}, split={"test_size": 0.001}, train={"epochs": 1},
        evaluate={"gate": gate, "gate_threshold": None}, publish={"folder": f"{tmp_path}/published"},
    )  # fmt: skip
    (tmp_path / "rows.json").write_text(json.dumps([{"question": "What is DNS?", "answer": PAIRS[2][1]}]))
    if gate == "auto":
        with pytest.raises(DataError, match="no row is left for testing, and evaluate.gate is auto"):
            pipeline.run(made)
        assert not (tmp_path / "published").exists()
        return
    pipeline.run(made)
    assert "Nothing was measured: there was no test row." in (tmp_path / "published/README.md").read_text()


def test_without_unknown_questions_the_threshold_is_from_the_training_rows(tiny_encoder: Path, tmp_path: Path) -> None:
    config = make_config(tmp_path, tiny_encoder, retriever={"unknown": None}, train={"epochs": 1})
    pipeline.run(config)
    metrics = read(tmp_path / "run", "metrics.json")["model"]
    assert -1 < metrics["threshold"] < 1
    assert "auroc" not in metrics and "unknown_rows" not in metrics


def test_other_unknown_questions_are_measured_in_a_finished_run(
    finder: Path, tiny_encoder: Path, tmp_path: Path
) -> None:
    run = shutil.copytree(finder / "run", tmp_path / "run")
    config = make_config(tmp_path, tiny_encoder, output=str(run), dataset={"file": f"{finder}/rows.json"})
    (tmp_path / "unknown.json").write_text(json.dumps([{"question": question} for question in UNKNOWN[:4]]))
    pipeline.evaluate_only(config)
    assert read(run, "metrics.json")["model"]["unknown_rows"] == 2
    (tmp_path / "unknown.json").unlink()
    pipeline.evaluate_only(config)
    assert read(run, "metrics.json")["model"]["unknown_rows"] == 2, "a finished run keeps those it has"
