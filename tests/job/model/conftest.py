"""Bases that the tests of the base stage spoil."""

import shutil
from pathlib import Path

import pytest
import torch
from tiny import save_tiny
from transformers import LlamaConfig, LlamaForCausalLM


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
