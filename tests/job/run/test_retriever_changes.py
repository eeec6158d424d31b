"""What a later call may change of a retriever's run: how it says that it does not know, and not what it learned."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from finding import PAIRS, UNKNOWN, make_config
from run_folders import claim, start_run

from job import pipeline
from job.config.schema import Config, RetrieverSection
from job.errors import ConfigError, DataError, Interrupted
from job.model.encoder import load_encoder
from job.run.retriever_facts import UnknownQuestions
from job.training.step import Learner

HARMLESS: list[dict[str, Any]] = [
    {"unknown": None},
    {"max_wrong": 0.5},
    {"threshold": 0.5},
    {"unknown_answer": "No idea."},
]
DECIDING: list[tuple[dict[str, Any], str]] = [
    ({"query_prompt": "ask: "}, "retriever.query_prompt was None and is 'ask: '"),
    ({"document_prompt": "say: "}, "retriever.document_prompt was None and is 'say: '"),
    ({"word_dropout": 0.5}, "retriever.word_dropout was 0.25 and is 0.5"),
    ({"base_share": 0.0}, "retriever.base_share was 0.5 and is 0.0"),
]


@pytest.fixture
def made(found: Path, tiny_encoder: Path, tmp_path: Path) -> Any:
    """A config of a copy of the finished run, on the same rows."""
    run = shutil.copytree(found, tmp_path / "run")

    def make(**sections: Any) -> Config:
        return make_config(found.parent, tiny_encoder, **{"output": str(run), **sections})

    return make


def read(config: Config, name: str) -> Any:
    return json.loads((Path(config.output) / name).read_text())


def test_every_key_is_one_or_the_other() -> None:
    tried = {key for values in [*HARMLESS, *(values for values, _ in DECIDING)] for key in values}
    assert tried == set(RetrieverSection.model_fields)


@pytest.mark.parametrize("changed", HARMLESS, ids=str)
def test_a_finished_run_is_measured_again_and_not_trained(
    changed: dict[str, Any], made: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Learner, "step", None)
    config = made(retriever=changed)
    weights = (Path(config.output) / "model/model.safetensors").read_bytes()
    pipeline.run(config)
    assert (Path(config.output) / "model/model.safetensors").read_bytes() == weights
    metrics, settings = read(config, "metrics.json"), read(config, "model/retriever.json")
    assert metrics["model"]["threshold"] == settings["threshold"]
    if "threshold" in changed:
        assert settings["threshold"] == 0.5
    if "unknown_answer" in changed:
        assert settings["unknown_answer"] == "No idea."
    assert ("unknown_rows" in metrics["model"]) == ("unknown" not in changed)


@pytest.mark.parametrize(("changed", "words"), DECIDING, ids=str)
def test_what_was_learned_is_not_changed(changed: dict[str, Any], words: str, made: Any) -> None:
    config = made(retriever=changed)
    with pytest.raises(ConfigError) as caught:
        pipeline.run(config)
    assert words in str(caught.value)
    assert f"model.base={config.output}/model" in str(caught.value)


@pytest.mark.parametrize(("changed", "words"), DECIDING, ids=str)
def test_a_checkpoint_is_no_base_to_continue_from(
    changed: dict[str, Any], words: str, tiny_encoder: Path, tmp_path: Path
) -> None:
    """A retriever starts from a whole model."""
    start_run(make_config(tmp_path, tiny_encoder))
    with pytest.raises(ConfigError) as caught:
        claim(make_config(tmp_path, tiny_encoder, retriever=changed))
    assert words in str(caught.value)
    assert "model.base=" not in str(caught.value)
    assert "choose another output, or remove" in str(caught.value)


def test_the_finished_model_is_a_base(found: Path, tmp_path: Path) -> None:
    config = make_config(tmp_path, found / "model", train={"epochs": 1})
    pipeline.run(config)
    names = {path.name for path in (tmp_path / "run/base").iterdir()}
    assert "README.md" not in names
    assert load_encoder(tmp_path / "run/model").max_seq_length == 32


def test_other_unknown_questions_are_measured(made: Any, tmp_path: Path) -> None:
    path = tmp_path / "others.json"
    path.write_text(json.dumps([{"question": question} for question in UNKNOWN[:4]]))
    config = made(retriever={"unknown": str(path)})
    pipeline.run(config)
    assert read(config, "metrics.json")["model"]["unknown_rows"] == 2
    path.unlink()
    pipeline.run(config)
    assert read(config, "metrics.json")["model"]["unknown_rows"] == 2, "a finished run keeps those that it has"
    with pytest.raises(DataError, match="gone.json"):
        pipeline.run(made(retriever={"unknown": str(tmp_path / "gone.json")}))
    assert claim(config).require(UnknownQuestions).questions == UNKNOWN[:4]


def test_unknown_questions_that_are_missing_cost_nothing(tiny_encoder: Path, tmp_path: Path) -> None:
    config = make_config(tmp_path, tiny_encoder, retriever={"unknown": str(tmp_path / "gone.json")})
    with pytest.raises(DataError, match="gone.json"):
        pipeline.run(config)
    assert not (tmp_path / "run/base").exists() and not (tmp_path / "run/data.json").exists()


def test_a_run_that_is_broken_off_publishes_the_bytes_of_an_unbroken_one(
    found: Path, tiny_encoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = make_config(found.parent, tiny_encoder, output=str(tmp_path / "run"))
    step = Learner.step
    monkeypatch.setattr(Learner, "step", lambda self, rows, stop, save: step(self, rows, self.done == 3, save))
    with pytest.raises(Interrupted, match="stopped at step 4"):
        pipeline.run(config)
    monkeypatch.setattr(Learner, "step", step)
    pipeline.run(config)
    for name in ("model.safetensors", "index.safetensors", "answers.parquet", "retriever.json", "loss.png"):
        assert (tmp_path / "run/model" / name).read_bytes() == (found / "model" / name).read_bytes(), name
    assert read(config, "model/metrics.json") == json.loads((found / "model/metrics.json").read_text())
    assert len(PAIRS) == read(config, "data.json")["train"]
