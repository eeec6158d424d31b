"""What the job's tests share: configs and a run that is done, and rows and a base to train."""

import json
from pathlib import Path
from typing import Any

import pytest
from configs import MakeConfig
from datasets import Dataset, DatasetDict
from finding import LENGTH, encoded, save_encoder, without_dropout
from finding import make_config as make_retriever_config
from tiny import ROWS
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from job import pipeline
from job.config.schema import Config, ModelSection, RetrieverSection
from job.data.encode import encode
from job.model import encoder_base


@pytest.fixture
def rows(tokenizer: PreTrainedTokenizerBase) -> DatasetDict:
    columns = {key: [row[key] for row in ROWS] for key in ("question", "answer")}
    encoded, _ = encode(
        Dataset.from_dict({**columns, "where": [f"row {number}" for number in range(len(ROWS))]}), tokenizer, 64
    )
    return DatasetDict(train=encoded.select(range(30)), test=encoded.select(range(30, 40)))


@pytest.fixture(scope="module")
def still(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base model without dropout: its masks differ with the shape of the batch."""
    from transformers import AutoModelForCausalLM

    folder = tmp_path_factory.mktemp("still")
    model = AutoModelForCausalLM.from_pretrained(tiny_base)
    for name in ("attn_pdrop", "embd_pdrop", "resid_pdrop"):
        setattr(model.config, name, 0.0)
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(tiny_base).save_pretrained(folder)
    return folder


@pytest.fixture
def data_file(tmp_path: Path) -> Path:
    path = tmp_path / "rows.json"
    path.write_text(json.dumps(ROWS))
    return path


@pytest.fixture
def make_config(tiny_base: Path, data_file: Path, tmp_path: Path) -> MakeConfig:
    """A config of a run that takes a second or two; sections given by name are merged into it."""

    def make(**sections: Any) -> Config:
        values: dict[str, Any] = {
            "dataset": {"file": str(data_file)},
            "model": {"base": str(tiny_base), "max_length": 64, "max_new_tokens": 12},
            "train": {"epochs": 2, "batch_size": 8, "learning_rate": 3e-3, "precision": "fp32", "logging_steps": 1},
            "output": str(tmp_path / "run"),
        }
        for name, section in sections.items():
            merged = {**values.get(name, {}), **section} if isinstance(section, dict) else section
            values[name] = merged
        return Config.model_validate(values)

    return make


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory, tiny_base: Path) -> Path:
    """A run folder as `run` leaves it, made once."""
    folder = tmp_path_factory.mktemp("finished")
    (folder / "rows.json").write_text(json.dumps(ROWS))
    config = Config.model_validate(
        {
            "dataset": {"file": str(folder / "rows.json")},
            "model": {"base": str(tiny_base), "max_length": 64, "max_new_tokens": 12},
            "train": {"epochs": 2, "learning_rate": 3e-3, "precision": "fp32"},
            "publish": {"license": "mit"},
            "output": str(folder / "run"),
        }
    )
    pipeline.run(config)
    return folder / "run"


@pytest.fixture(scope="session")
def tiny_encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A two-layer BERT with dropout, as sentence-transformers saves it."""
    return save_encoder(tmp_path_factory.mktemp("encoder") / "tiny")


@pytest.fixture(scope="session")
def calm_encoder(fetched_encoder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny encoder without dropout, as the base stage leaves it."""
    return without_dropout(fetched_encoder, tmp_path_factory.mktemp("calm-encoder") / "base")


@pytest.fixture(scope="session")
def fetched_encoder(tiny_encoder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny encoder as the base stage leaves it."""
    folder = tmp_path_factory.mktemp("fetched-encoder") / "base"
    section = ModelSection(kind="retriever", base=str(tiny_encoder), max_length=LENGTH)
    encoder_base.fetch(section, RetrieverSection(), folder)
    return folder


@pytest.fixture(scope="session")
def pair_rows(fetched_encoder: Path) -> DatasetDict:
    """Encoded questions and answers: 20 to train, two pairs of which share an answer, and 4 to test."""
    return encoded(fetched_encoder)


@pytest.fixture(scope="session")
def found(tmp_path_factory: pytest.TempPathFactory, tiny_encoder: Path) -> Path:
    """The run folder of a retriever as `run` leaves it, made once; its config and data lie beside it."""
    folder = tmp_path_factory.mktemp("found")
    pipeline.run(make_retriever_config(folder, tiny_encoder, publish={"license": "mit"}))
    return folder / "run"
