"""Tiny bases to spoil, and what a refusal must look like."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tiny import ROWS, save_tiny
from transformers import AutoTokenizer, RobertaConfig, RobertaForCausalLM, T5Config, T5ForConditionalGeneration

from job.config.schema import ModelSection
from job.errors import ConfigError, Exit
from job.model import base

SMALL: dict[str, Any] = {
    "vocab_size": 400,
    "hidden_size": 48,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 128,
    "bos_token_id": 0,
    "eos_token_id": 0,
    "pad_token_id": 0,
}
Spoil = Callable[[Path], None]


def section(folder: Path | str, **values: object) -> ModelSection:
    return ModelSection.model_validate({"base": str(folder), "max_length": 64, "max_new_tokens": 12, **values})


def refused(folder: Path | str, tmp_path: Path, **values: object) -> str:
    """The one line with which a base is refused; nothing of it stays."""
    with pytest.raises(ConfigError) as caught:
        base.fetch(section(folder, **values), tmp_path / "out" / "base")
    line = str(caught.value)
    assert caught.value.exit_code == Exit.CONFIG
    assert "\n" not in line
    assert len(line) < 800, line
    assert not (tmp_path / "out").exists()
    return line


def edit(path: Path, **values: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def saved(folder: Path, model: Any, **tokens: str) -> Path:
    save_tiny(folder, model)
    if tokens:
        tokenizer = AutoTokenizer.from_pretrained(folder)
        tokenizer.add_special_tokens(tokens)
        tokenizer.save_pretrained(folder)
    return folder


def t5(folder: Path) -> None:
    saved(folder, T5ForConditionalGeneration(T5Config(vocab_size=400, d_model=32, d_ff=64, num_layers=1, num_heads=2)))


def templated(folder: Path, template: str | dict[str, str]) -> Path:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.chat_template = template
    tokenizer.save_pretrained(folder)
    return folder


def config(folder: Path, source: Path | str, more: str = "") -> Path:
    (folder / "rows.json").write_text(json.dumps(ROWS))
    path = folder / "config.yaml"
    path.write_text(
        f"dataset: {{file: {folder}/rows.json}}\nmodel: {{base: {source}, max_length: 64, max_new_tokens: 12{more}}}\n"
        "train: {epochs: 1, learning_rate: 3e-3, precision: fp32}\nevaluate: {gate: 'off'}\n"
        f"publish: {{folder: {folder}/published}}\noutput: {folder}/run\n"
    )
    return path


def roberta(folder: Path) -> None:
    saved(folder, RobertaForCausalLM(RobertaConfig(**SMALL)))
