"""Whole runs with a search, on tiny models: what is found, where it is written, and what runs again to the same."""

import json
from pathlib import Path
from typing import Any

import pytest
from configs import MakeConfig
from finding import make_config as make_retriever_config
from safetensors.torch import load_file
from searching import AUTO, keep_steady_time, numbers, read_facts
from tiny import ROWS
from training import Stopping, same

from job import check, pipeline
from job.config.read import load
from job.config.schema import Config
from job.errors import ConfigError, DataError, Diverged, Interrupted
from job.explain import explain
from job.search import decoding
from job.training.step import Learner


def read(config: Config, name: str) -> Any:
    return json.loads((Path(config.output) / name).read_text())


@pytest.fixture
def searched(make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch) -> Config:
    keep_steady_time(monkeypatch)
    config = make_config(train=AUTO, model={"decoding": "auto"})
    pipeline.run(config)
    return config


def test_what_was_found_is_in_run_yaml_and_runs_again_to_the_same_model(searched: Config, tmp_path: Path) -> None:
    found = read_facts(searched.output)
    assert found.finished
    assert found.chosen is not None
    assert found.metric == "f1"
    assert not (Path(searched.output) / "search").exists()
    written = load(Path(searched.output) / "run.yaml")
    assert written.auto_keys() == []
    assert (written.train.learning_rate, written.train.epochs) == (found.learning_rate, found.epochs)
    assert written.train.search_minutes == 10
    assert read(searched, "training.json")["steps"] == 5 * (found.epochs or 0)
    again = written.model_copy(update={"output": str(tmp_path / "again")})
    pipeline.run(again)
    models = [Path(each.output) / "model" for each in (searched, again)]
    assert same(*(load_file(model / "model.safetensors") for model in models))
    names = ("generation_config.json", "metrics.json", "run.yaml")
    texts = [[(model / name).read_text() for name in names] for model in models]
    assert texts[0][:2] == texts[1][:2]
    assert texts[0][2].replace("output: run", "output: again") == texts[1][2]


def test_a_finished_run_is_called_again_with_auto_or_with_what_was_found(
    searched: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = read(searched, "search.json"), read(searched, "metrics.json")
    monkeypatch.setattr(Learner, "step", None)  # nothing is trained again
    written = load(Path(searched.output) / "run.yaml")
    for config in (searched, written, searched.model_copy(update={"output": written.output})):
        pipeline.run(config)
        assert (read(searched, "search.json"), read(searched, "metrics.json")) == before
        assert load(Path(searched.output) / "run.yaml") == written
    other = searched.model_copy(update={"train": searched.train.model_copy(update={"epochs": 7})})
    with pytest.raises(ConfigError, match="train.epochs was 'auto' and is 7"):
        pipeline.run(other)


def test_report_card_and_explanation_say_that_it_was_a_search(searched: Config) -> None:
    folder, found = Path(searched.output), read_facts(searched.output)
    report = (folder / "report.html").read_text()
    assert "Search for settings" in report
    assert report.count("<td>chosen</td>") == 2, "a training and a way of decoding"
    assert "No test row was used" in report
    card = (folder / "model" / "README.md").read_text()
    assert "Found by a search on held-back training rows" in card
    assert f"| epochs | {found.epochs} |" in card
    assert "| epochs | auto |" not in card
    texts = [explain(folder, f"rows.json row {number}") for number in range(1, 41)]
    assert sum("search    held back" in text for text in texts) == found.held_back
    assert sum("search    one of the rows" in text for text in texts) == found.rows
    assert found.held_back + found.rows == read(searched, "data.json")["train"]


def test_the_chosen_decoding_is_published_and_measured(
    make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep_steady_time(monkeypatch)
    monkeypatch.setattr(decoding, "CHOICES", ({"repetition_penalty": 1.2, "no_repeat_ngram_size": 3},))
    config = make_config(model={"decoding": "auto"})
    pipeline.run(config)
    for name in ("base", "model"):
        settings = read(config, f"{name}/generation_config.json")
        assert (settings["repetition_penalty"], settings["no_repeat_ngram_size"]) == (1.2, 3)
    assert read(config, "metrics.json")["settings"]["decoding"] == {
        "repetition_penalty": 1.2,
        "no_repeat_ngram_size": 3,
    }
    assert read(config, "training.json")["steps"] == 10, "the config's epochs"


def test_a_search_goes_on_where_it_was_killed_or_stopped(
    make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    configs = [make_config(train=AUTO, output=str(tmp_path / name)) for name in ("whole", "broken")]
    with monkeypatch.context() as patch:
        keep_steady_time(patch)
        pipeline.run(configs[0])
    for longest in (0, 3, 7):
        with monkeypatch.context() as patch, pytest.raises(KeyError, match="killed"):
            keep_steady_time(patch, longest - len(_trials(configs[1])))
            pipeline.run(configs[1])
        assert len(_trials(configs[1])) == longest
    with monkeypatch.context() as patch:
        patch.setattr(Learner, "step", Stopping([2]).step)
        keep_steady_time(patch)
        with pytest.raises(Interrupted, match="stopped at step 2 of"):
            pipeline.run(configs[1])
    keep_steady_time(monkeypatch)
    pipeline.run(configs[1])
    whole, broken = (read_facts(config.output) for config in configs)
    assert numbers(whole) == numbers(broken)
    assert (whole.learning_rate, whole.epochs) == (broken.learning_rate, broken.epochs)
    models = [load_file(Path(config.output) / "model" / "model.safetensors") for config in configs]
    assert same(*models)


def _trials(config: Config) -> list[Any]:
    path = Path(config.output) / "search.json"
    return json.loads(path.read_text()).get("trials", []) if path.exists() else []


def test_no_test_row_has_a_part_in_it(make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    keep_steady_time(monkeypatch)
    found = []
    for name, answer in (("one", "One."), ("other", "Another.")):
        test = tmp_path / f"{name}.json"
        test.write_text(json.dumps([{"question": f"Is it the {name}?", "answer": answer}]))
        config = make_config(
            dataset={"test": str(test)}, train=AUTO, evaluate={"gate": "off"}, output=str(tmp_path / name)
        )
        pipeline.run(config)
        found.append(numbers(read_facts(config.output)))
    assert found[0] == found[1]


@pytest.mark.parametrize(("key", "value"), [("epochs", 2), ("learning_rate", 1e-3)])
def test_one_of_the_two_is_given(
    make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch, key: str, value: float
) -> None:
    keep_steady_time(monkeypatch)
    config = make_config(train={**AUTO, key: value})
    pipeline.run(config)
    found = read_facts(config.output)
    assert getattr(found, key) == value
    assert {getattr(trial, key) for trial in found.trials} <= ({1, 2} if key == "epochs" else {value})
    assert len(found.trials) > 1


def test_a_rate_that_diverges_is_a_lost_trial(make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    keep_steady_time(monkeypatch)
    unchanged = Learner.step

    def diverge(learner: Learner, *arguments: Any) -> Any:
        if learner.section.learning_rate > highest:
            raise Diverged("it exploded")
        return unchanged(learner, *arguments)

    monkeypatch.setattr(Learner, "step", diverge)
    highest = 2e-3
    config = make_config(train={**AUTO, "epochs": 2})
    pipeline.run(config)
    lost = [trial.learning_rate for trial in read_facts(config.output).trials if trial.loss is None]
    assert lost
    assert min(lost) > highest
    assert "diverged" in (Path(config.output) / "report.html").read_text()
    highest = 2e-5  # above the rate of the rehearsal
    with pytest.raises(Diverged, match="no rate of .* trains"):
        pipeline.run(make_config(train={**AUTO, "epochs": 2}, seed=7, output=f"{config.output}-none"))


def test_a_budget_that_is_too_small_and_too_few_rows(
    make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch, data_file: Path
) -> None:
    keep_steady_time(monkeypatch)
    for keys in ({"epochs": 2}, {"learning_rate": 1e-3}, {}):
        with pytest.raises(ConfigError, match=r"search_minutes: found 0.001, and the smallest search .* minutes here"):
            pipeline.run(make_config(train={**AUTO, "search_minutes": 0.001, **keys}))
    data_file.write_text(json.dumps(ROWS[:20]))
    for command in (check.check, pipeline.run):
        with pytest.raises(DataError, match=r"train.learning_rate: found auto with 17 training rows in 17 groups"):
            command(make_config(train=AUTO))


def test_check_says_what_a_search_costs(make_config: MakeConfig) -> None:
    text = check.check(make_config(train=AUTO))
    assert "steps and minutes are those of one epoch" in text
    assert "the search for train.learning_rate and train.epochs takes up to 0.2 minutes" in text


def test_another_budget_starts_over_and_a_fixed_number_ends_the_search(
    make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch, pytest.raises(KeyError, match="killed"):
        keep_steady_time(patch, 3)
        pipeline.run(make_config(train=AUTO))
    keep_steady_time(monkeypatch)
    config = make_config(train={**AUTO, "search_minutes": 0.15})
    pipeline.run(config)
    assert read_facts(config.output).minutes == 0.15
    with monkeypatch.context() as patch, pytest.raises(KeyError, match="killed"):
        keep_steady_time(patch, 3)
        pipeline.run(make_config(train=AUTO, output=f"{config.output}-2"))
    fixed = make_config(output=f"{config.output}-2")
    pipeline.run(fixed)
    assert not (Path(fixed.output) / "search.json").exists()
    assert load(Path(fixed.output) / "run.yaml").train.epochs == 2


def test_a_retriever_is_searched_by_rank(tmp_path: Path, tiny_encoder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keep_steady_time(monkeypatch)
    config = make_retriever_config(tmp_path, tiny_encoder, train={**AUTO, "batch_size": 4, "precision": "fp32"})
    pipeline.run(config)
    found = read_facts(config.output)
    assert found.metric == "mrr_at_10"
    assert all(trial.score is not None for trial in found.trials)
    assert load(Path(config.output) / "run.yaml").train.epochs == found.epochs
    assert "Found by a search" in (Path(config.output) / "model" / "README.md").read_text()
