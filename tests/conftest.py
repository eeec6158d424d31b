"""What many tests share: a tiny base model with a tokenizer of its own, data files, configs, and the test Hub."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from faults.runs import ForkServer
from hub_server import HubServer
from huggingface_hub import constants, set_client_factory
from huggingface_hub.utils._http import default_client_factory
from served import Served, endless, teach
from tokenizers import ByteLevelBPETokenizer
from transformers import (
    AutoTokenizer,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)

from job import pipeline
from job.config.schema import Config, ModelSection
from job.model import base
from job.run.machine import Machine

END = "<|endoftext|>"
TOKEN = "hf_aSecretThatMustNotBeSeen"
ROWS = [
    {"question": f"What is {number} plus {number}?", "answer": f"{number} plus {number} is {2 * number}."}
    for number in range(1, 41)
]
CPU = Machine(torch.device("cpu"), "fp32")


def save_tiny(folder: Path, model: Any, vocabulary: int = 400) -> Path:
    """A base as distilgpt2 is on the Hub: an end-of-sequence token, but neither chat template nor padding token."""
    bpe = ByteLevelBPETokenizer()
    texts = [text for row in ROWS for text in row.values()] + ["Question:\n\nAnswer:\n"]
    bpe.train_from_iterator(texts, vocab_size=vocabulary, special_tokens=[END], show_progress=False)
    PreTrainedTokenizerFast(tokenizer_object=bpe._tokenizer, eos_token=END, bos_token=END).save_pretrained(folder)
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A two-layer GPT-2."""
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=400, n_positions=128, n_embd=48, n_layer=2, n_head=2, bos_token_id=0, eos_token_id=0)
    return save_tiny(tmp_path_factory.mktemp("gpt2"), GPT2LMHeadModel(config))


@pytest.fixture(scope="session")
def tiny_llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A two-layer Llama with grouped key-value heads, as the demo's base."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=400,
        max_position_embeddings=128,
        hidden_size=48,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        bos_token_id=0,
        eos_token_id=0,
        tie_word_embeddings=True,
    )
    return save_tiny(tmp_path_factory.mktemp("llama"), LlamaForCausalLM(config))


@pytest.fixture
def copy(tiny_llama: Path, tmp_path: Path) -> Path:
    """A tiny Llama to spoil."""
    return Path(shutil.copytree(tiny_llama, tmp_path / "copy"))


@pytest.fixture(scope="session")
def fetched(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny GPT-2 as the base stage leaves it."""
    folder = tmp_path_factory.mktemp("fetched") / "base"
    base.fetch(ModelSection(base=str(tiny_base), max_length=64, max_new_tokens=12), folder)
    return folder


@pytest.fixture(scope="session")
def tokenizer(fetched: Path) -> PreTrainedTokenizerBase:
    loaded: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(fetched)
    return loaded


@pytest.fixture
def data_file(tmp_path: Path) -> Path:
    path = tmp_path / "rows.json"
    path.write_text(json.dumps(ROWS))
    return path


MakeConfig = Callable[..., Config]


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


def point_clients(monkeypatch: pytest.MonkeyPatch, server: HubServer, cache: Path) -> None:
    """Let the clients of this process find the test Hub; they read all this from the environment at import."""
    template = server.url + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "ENDPOINT", server.url)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[HubServer]:
    """The test Hub, found by the real clients in this process; HF_TOKEN belongs to ada, who may write."""
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    with HubServer() as server:
        point_clients(monkeypatch, server, tmp_path / "cache")
        server.users = {
            TOKEN: {"name": "ada", "role": "write"},
            "hf_reader": {"name": "ada", "role": "read"},
            "hf_stranger": {"name": "bob", "role": "write"},
        }
        set_client_factory(default_client_factory)
        yield server
        set_client_factory(default_client_factory)


@pytest.fixture(scope="session")
def published(fetched: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A published folder; its model knows the first eight of ROWS by heart and ends its answers."""
    return teach(fetched, tmp_path_factory.mktemp("published") / "tiny", ROWS[:8])


@pytest.fixture(scope="session")
def never_ending(fetched: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A published folder; its model goes on until it is stopped."""
    return endless(fetched, tmp_path_factory.mktemp("endless") / "tiny")


@pytest.fixture(scope="session")
def server(published: Path) -> Iterator[Served]:
    with Served(published) as running:
        yield running


@pytest.fixture(scope="session")
def guarded(published: Path) -> Iterator[Served]:
    """A server that asks for its `key`."""
    with Served(published, KICKOFF_API_KEY="a-secret-of-the-tests") as running:
        yield running


@pytest.fixture(scope="session")
def jobs() -> Iterator[ForkServer]:
    """Starts jobs as processes of their own without the seconds that the imports take."""
    with ForkServer() as server:
        yield server


@pytest.fixture(scope="session")
def reference(jobs: ForkServer, tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the config of a run of 100 steps, and the run itself, which nothing has broken."""
    folder = tmp_path_factory.mktemp("reference")
    (folder / "rows.json").write_text(json.dumps(ROWS))
    (folder / "config.yaml").write_text(
        f"dataset: {{file: {folder}/rows.json}}\n"
        f"model: {{base: {tiny_base}, max_length: 64, max_new_tokens: 12}}\n"
        "train: {epochs: 20, learning_rate: 3e-3, precision: fp32, logging_steps: 1, save_steps: 3}\n"
        f"evaluate: {{batch_size: 2}}\noutput: {folder}/run\n"
    )
    run = jobs.run(folder, "run", f"{folder}/config.yaml")
    assert run.code == 0, run.text()
    return folder


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


def job(*arguments: str | Path, cwd: Path | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run `python -m job` as a user does."""
    root = Path(__file__).parents[1]
    env = {**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1", **environment}
    command = [sys.executable, "-m", "job", *map(str, arguments)]
    return subprocess.run(command, env=env, cwd=cwd or root, capture_output=True, text=True, timeout=110)
