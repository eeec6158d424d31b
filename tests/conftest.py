"""What tests of several folders share: tiny models, runs, servers, and the test Hub."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

# before they are imported: an assert that fails in one of them shows its values, as in a test
pytest.register_assert_rewrite(*(path.stem for path in Path(__file__).with_name("support").glob("*.py")))

import fork_server
from hub_clients import TOKEN, point_clients
from hub_server import HubServer
from huggingface_hub import set_client_factory
from huggingface_hub.utils._http import default_client_factory
from served import Served
from tiny import ROWS, endless, save_tiny, teach
from transformers import AutoTokenizer, GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerBase

from job.config.schema import ModelSection
from job.model import base


@pytest.fixture(scope="session")
def tiny_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A two-layer GPT-2."""
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=400, n_positions=128, n_embd=48, n_layer=2, n_head=2, bos_token_id=0, eos_token_id=0)
    return save_tiny(tmp_path_factory.mktemp("gpt2"), GPT2LMHeadModel(config))


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
def jobs() -> fork_server.ForkServer:
    """Starts jobs as processes of their own without the seconds that the imports take."""
    return fork_server.shared()


@pytest.fixture(scope="session")
def reference(jobs: fork_server.ForkServer, tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
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
