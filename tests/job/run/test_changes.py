"""What a later call may change in a run that has begun, and what it may not."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from configs import MakeConfig
from run_folders import claim, start_run, weights
from tiny import ROWS

from job import pipeline
from job.config.read import load
from job.config.schema import Config
from job.errors import ConfigError, DataError, Interrupted
from job.training.step import Learner

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
    {"model": {"decoding": {"repetition_penalty": 1.1}}},
    {"publish": {"repo": "ada/soccer", "tag": "v1", "license": "mit"}},
    {"evaluate": {"generate_rows": 3, "batch_size": 2, "gate": "off"}},
    {"model": {"revision": "main"}},
]
DECIDING: list[tuple[dict[str, Any], str]] = [
    ({"train": {"epochs": 3}}, "train.epochs was 2 and is 3"),
    ({"train": {"epochs": "auto"}}, "train.epochs was 2 and is 'auto'"),
    ({"model": {"decoding": "auto"}}, "model.decoding was 'greedy' and is 'auto'"),
    ({"train": {"lr_scheduler": "cosine"}}, "train.lr_scheduler was 'linear' and is 'cosine'"),
    ({"train": {"keep": "last"}}, "train.keep was 'best' and is 'last'"),
    ({"train": {"test_steps": 3}}, "train.test_steps was None and is 3"),
    ({"train": {"patience": 3}}, "train.patience was None and is 3"),
    ({"train": {"word_dropout": 0.3}}, "train.word_dropout was 0.0 and is 0.3"),
    ({"train": {"paraphrases": 2}}, "train.paraphrases was 0 and is 2"),
    ({"clean": {"lowercase": True}}, "clean.lowercase was False and is True"),
    ({"dedupe": {"near": False}}, "dedupe.near was True and is False"),
    ({"split": {"test_size": 0.2}}, "split.test_size was 0.15 and is 0.2"),
    ({"model": {"max_length": 32}}, "model.max_length was 64 and is 32"),
    ({"model": {"revision": "v2"}}, "model.revision was None and is 'v2'"),
    ({"seed": 7}, "seed was 42 and is 7"),
]


@pytest.mark.parametrize("sections", HARMLESS, ids=str)
def test_changes_that_cannot_alter_finished_work_are_accepted(
    sections: dict[str, Any], make_config: MakeConfig
) -> None:
    start_run(make_config())
    claim(make_config(**sections))
    assert load(Path(make_config().output) / "run.yaml") == make_config(**sections)
    claim(make_config())


@pytest.mark.parametrize(("sections", "told"), DECIDING, ids=lambda value: str(value))
def test_changes_that_would_alter_finished_work_are_refused_with_two_remedies(
    sections: dict[str, Any], told: str, make_config: MakeConfig
) -> None:
    folder = start_run(make_config())
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
    folder = start_run(make_config())
    (folder / "checkpoints/step-00000009").mkdir()
    with pytest.raises(ConfigError, match="checkpoints/step-00000007 output"):
        claim(make_config(seed=7))
    (folder / "model").mkdir()
    with pytest.raises(ConfigError, match=f"model.base={folder.path}/model output"):
        claim(make_config(seed=7))
    with pytest.raises(ConfigError) as caught:
        claim(make_config(model={"base": "somebody/else"}))
    assert "model.base=" not in str(caught.value), "its weights are not what is wanted"


def test_the_checkpoint_decides_about_another_batch_until_the_model_is_finished(make_config: MakeConfig) -> None:
    """With other processes the product has to change; only the checkpoint knows how many there were."""
    folder = start_run(make_config())
    for sections in ({"batch_size": 4}, {"gradient_accumulation_steps": 2}):
        claim(make_config(train=sections))
    claim(make_config())
    (folder / "model").mkdir()
    claim(make_config(train={"batch_size": 4, "gradient_accumulation_steps": 2}))
    claim(make_config())
    with pytest.raises(ConfigError, match="train.batch_size was 8 and is 4"):
        claim(make_config(train={"batch_size": 4}))


def test_data_that_moved_is_the_same_data(make_config: MakeConfig, data_file: Path, tmp_path: Path) -> None:
    start_run(make_config())
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
    start_run(make_config())
    with pytest.raises(ConfigError, match=r"dataset\.\w+"):
        claim(make_config(dataset=change(tmp_path)))


def test_train_and_test_rows_exchanged_are_other_data(make_config: MakeConfig, tmp_path: Path) -> None:
    (tmp_path / "test.json").write_text(json.dumps(ROWS[:5]))
    first, second = str(tmp_path / "rows.json"), str(tmp_path / "test.json")
    start_run(make_config(dataset={"file": first, "test": second}))
    with pytest.raises(ConfigError, match=r"dataset\.file was .*; dataset\.test was"):
        claim(make_config(dataset={"file": second, "test": first}))


def test_a_glob_that_finds_one_more_file(make_config: MakeConfig, tmp_path: Path) -> None:
    config = make_config(dataset={"file": str(tmp_path / "*.json")})
    start_run(config)
    shutil.copy(tmp_path / "rows.json", tmp_path / "same.json")
    with pytest.raises(DataError, match="same.json changed"):
        claim(config)


def test_a_run_resumes_after_allowed_changes_to_the_same_weights(
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
        ({"train": {"word_dropout": 0.3}}, set()),
        ({"train": {"paraphrases": 2}}, {"data"}),
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
