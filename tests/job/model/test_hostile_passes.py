"""Bases whose forward pass depends on batch, padding or position, and those with little context."""

from pathlib import Path
from typing import Any

import pytest
import torch
from hostile import SMALL, refused, saved, section
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaModel,
    OPTConfig,
    OPTForCausalLM,
    RobertaConfig,
    RobertaForCausalLM,
)

from job.errors import ConfigError
from job.model import base, probe


def test_a_row_that_depends_on_its_batch(copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stands for experts of limited capacity: the first tokens of a batch push out the others."""
    forward = LlamaModel.forward

    def crowded(self: Any, *arguments: Any, **options: Any) -> Any:
        output = forward(self, *arguments, **options)
        states = output.last_hidden_state
        output.last_hidden_state = states + 0.01 * (len(states) > 1) * states.flip(-1)
        return output

    monkeypatch.setattr(LlamaModel, "forward", crowded)
    assert "predicts differently for a row in a batch" in refused(copy, tmp_path)


def test_a_mask_that_moves_positions(copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Counted from the end of the mask, positions shift when padding follows."""
    forward = LlamaModel.forward

    def shifted(self: Any, input_ids: Any = None, attention_mask: Any = None, **options: Any) -> Any:
        if attention_mask is not None and options.get("past_key_values") is None and not attention_mask.all():
            options["position_ids"] = torch.full_like(attention_mask, 5)
        return forward(self, input_ids=input_ids, attention_mask=attention_mask, **options)

    monkeypatch.setattr(LlamaModel, "forward", shifted)
    assert "predicts differently for a row with padding after it" in refused(copy, tmp_path)


def test_a_model_that_ignores_padding_in_front(copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    forward = LlamaModel.forward

    def blind(self: Any, attention_mask: Any = None, **options: Any) -> Any:
        return forward(self, attention_mask=None, **options)

    monkeypatch.setattr(LlamaModel, "forward", blind)
    assert "padding in front changes its answers" in refused(copy, tmp_path)


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"max_length": 512}, "lower model.max_length to 16 or less"),
        ({"max_length": 16, "max_new_tokens": 16}, "model.max_new_tokens: found 16, and .* lower model.max_new_tokens"),
        ({"max_length": 512, "max_new_tokens": 128}, "model.max_length: found 512.*; model.max_new_tokens: found 128"),
    ],
)
def test_a_tiny_context(values: dict[str, int], says: str, tmp_path: Path) -> None:
    config = GPT2Config(vocab_size=400, n_positions=16, n_embd=48, n_layer=2, n_head=2, bos_token_id=0, eos_token_id=0)
    source = saved(tmp_path / "source", GPT2LMHeadModel(config))
    with pytest.raises(ConfigError, match=says):
        base.fetch(section(source, **values), tmp_path / "out")
    assert base.fetch(section(source, max_length=16, max_new_tokens=4), tmp_path / "out").context == 16


def test_positions_that_begin_at_two_leave_less_context() -> None:
    for model, context in (
        (RobertaForCausalLM(RobertaConfig(**{**SMALL, "pad_token_id": 1, "is_decoder": True})), 126),
        (OPTForCausalLM(OPTConfig(**SMALL, ffn_dim=96, word_embed_proj_dim=48)), 128),
    ):
        assert probe.require_causal("it", model, 1, {0, 1}) == context


def test_positions_that_differ_in_generation(tmp_path: Path) -> None:
    """RoBERTa counts positions from its padding id, and transformers' generate from zero."""
    decoder = RobertaConfig(**{**SMALL, "pad_token_id": 1, "is_decoder": True})
    source = saved(tmp_path / "source", RobertaForCausalLM(decoder), pad_token="!")
    assert "generates differently from what it predicts in one pass (its cache or its positions" in refused(
        source, tmp_path
    )
