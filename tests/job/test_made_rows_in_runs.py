"""Whole runs with rows in other wordings: what the run, its report, its card and `explain` say of them."""

import json
from pathlib import Path
from typing import Any

import datasets
import pyarrow.parquet as pq
import pytest
from configs import MakeConfig
from finding import PAIRS, REWORDED
from finding import make_config as make_retriever_config

from job import pipeline
from job.data.made_rows import originals
from job.explain import explain
from job.run.facts import DataFacts, TrainingFacts
from job.run.folder import RunFolder


def read(run: Path, name: str) -> Any:
    return json.loads((run / name).read_text())


def check_accounts(run: Path) -> datasets.Dataset:
    """Counts, report and card agree; returns the training rows."""
    rows = datasets.load_from_disk(run / "encoded")["train"]
    data = read(run, "data.json")
    assert data["rows"] == data["train"] + data["test"] + data.get("rejected", 0)
    assert len(rows) == data["train"] + data["made"] and data["made"] > 0
    said = f"{data['made']} rows were made from"
    assert said in (run / "report.html").read_text() and said in (run / "model/README.md").read_text()
    return rows


def check_explained(run: Path, made: dict[str, Any], question: str) -> None:
    """A made row leads to its original, and the original to the rows made from it."""
    of_made, of_original = explain(run, made["where"]), explain(run, made["made_from"])
    assert f"made      from {made['made_from']}, its question in other words" in of_made
    for text in (question, made["question"]):
        assert json.dumps(text) in of_made and json.dumps(text) in of_original
    assert f"made      {made['where']}: {json.dumps(made['question'])}" in of_original
    assert "split " not in of_made and "split     to train" in of_original


def test_a_generators_run(make_config: MakeConfig, data_file: Path) -> None:
    config = make_config(train={"paraphrases": 2, "word_dropout": 0.3})
    pipeline.run(config)
    run = Path(config.output)
    rows = check_accounts(run)
    steps = RunFolder(config).require(TrainingFacts).steps
    assert steps == 2 * -(-len(rows) // 8), "made rows are trained"
    made = rows[len(originals(rows))]
    number = int(made["made_from"].split()[-1])
    check_explained(run, made, json.loads(data_file.read_text())[number - 1]["question"])
    test = datasets.load_from_disk(run / "encoded")["test"]
    assert f"{len(test)} test rows" in (run / "model/README.md").read_text()


def test_a_retrievers_run(tiny_encoder: Path, tmp_path: Path) -> None:
    config = make_retriever_config(tmp_path, tiny_encoder, train={"paraphrases": 2})
    pipeline.run(config)
    run = tmp_path / "run"
    rows = check_accounts(run)
    made = rows[len(originals(rows))]
    check_explained(run, made, PAIRS[int(made["made_from"].split()[-1]) - 1][0])
    published = pq.read_table(run / "model/answers.parquet").to_pydict()
    assert set(published["question"]) <= {*(question for question, _ in PAIRS), None}, "made rows only train"
    asked = {row["question"] for row in REWORDED}
    assert not asked & set(rows["question"])


@pytest.mark.parametrize("changed", [{"paraphrases": 1}, {"paraphrases": 0}])
def test_data_that_is_prepared_again_has_the_same_made_rows(changed: dict[str, int], make_config: MakeConfig) -> None:
    """Once it is removed from a finished run; and without made rows it is refused as another run."""
    config = make_config(train={"paraphrases": 2}, evaluate={"gate": "off"})
    pipeline.run(config)
    folder = RunFolder(config)
    before = folder.require(DataFacts)
    questions = datasets.load_from_disk(folder / "encoded")["train"]["question"][:]
    folder.discard("data.json", "encoded")
    pipeline.run(config)
    assert folder.require(DataFacts) == before
    assert datasets.load_from_disk(folder / "encoded")["train"]["question"][:] == questions
    with pytest.raises(Exception, match=r"train\.paraphrases was 2 and is"):
        pipeline.run(make_config(train=changed, evaluate={"gate": "off"}))
