"""Whole runs with a search, on tiny models: what is found, where it is written, and what runs again to the same."""

import json
from pathlib import Path
from typing import Any

import pytest
from configs import MakeConfig
from safetensors.torch import load_file
from training import same

from job import pipeline
from job.config.read import load
from job.config.schema import Config
from job.run import fact_files
from job.run.search_facts import SearchFacts

AUTO = {"epochs": "auto", "learning_rate": "auto", "keep": "last", "search_minutes": 0.2}


def read(config: Config, name: str) -> Any:
    return json.loads((Path(config.output) / name).read_text())


def facts(config: Config) -> SearchFacts:
    found = fact_files.read(Path(config.output), SearchFacts)
    assert found is not None
    return found


@pytest.fixture
def searched(make_config: MakeConfig) -> Config:
    config = make_config(train=AUTO, model={"decoding": "auto"})
    pipeline.run(config)
    return config


def test_what_was_found_is_in_run_yaml_and_runs_again_to_the_same_model(searched: Config, tmp_path: Path) -> None:
    found = facts(searched)
    assert found.finished
    assert found.chosen is not None
    assert found.metric == "f1"
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
