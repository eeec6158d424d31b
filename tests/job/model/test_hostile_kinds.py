"""Bases of another kind than a decoder are refused; decoders of every kind are taken."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from hostile import SMALL, Spoil, edit, refused, roberta, saved, section, t5
from safetensors.torch import load_file
from transformers import (
    CONFIG_MAPPING,
    AutoModelForCausalLM,
    BertConfig,
    BertForMaskedLM,
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    GenerationConfig,
    LlamaConfig,
    LlamaForCausalLM,
    MixtralConfig,
    MixtralForCausalLM,
    OPTConfig,
    OPTForCausalLM,
)

from job.model import base, probe


def bert(folder: Path) -> None:
    saved(folder, BertForMaskedLM(BertConfig(**SMALL)))


def bert_without_end(folder: Path) -> None:
    bert(folder)
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        if (folder / name).exists():
            edit(folder / name, eos_token=None)


def bert_without_head(folder: Path) -> None:
    saved(folder, BertForMaskedLM(BertConfig(**SMALL)).bert)


def looks_ahead(folder: Path) -> None:
    """A decoder by its name, told to look both ways, as embedding models made of decoders are."""
    config = Gemma3TextConfig(**SMALL, num_key_value_heads=2, head_dim=12, use_bidirectional_attention=True)
    saved(folder, Gemma3ForCausalLM(config))


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (t5, "is an encoder-decoder (t5), which is not supported yet"),
        (roberta, "sees the tokens that it must predict"),
        (bert, "sees the tokens that it must predict"),
        (bert_without_end, "sees the tokens that it must predict"),
        (bert_without_head, "lacks weights that BertLMHeadModel needs and that would start at random"),
        (looks_ahead, "sees the tokens that it must predict"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_model_of_another_kind_is_refused(make: Spoil, says: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    make(tmp_path / "source")
    assert says in refused(tmp_path / "source", tmp_path)


def test_a_vision_language_model_and_one_that_writes_no_text(tiny_llama: Path, tmp_path: Path) -> None:
    for name, values, says in (
        ("gemma3", {"vision_config": {"hidden_size": 8}}, "also takes images or sound (gemma3)"),
        ("vit", {}, "is not a causal language model (vit)"),
    ):
        folder = Path(shutil.copytree(tiny_llama, tmp_path / name))
        (folder / "config.json").write_text(json.dumps({"model_type": name, **values}))
        assert says in refused(folder, tmp_path)


def test_decoders_of_several_kinds_are_accepted(tmp_path: Path) -> None:
    """Also those with a table of positions that starts at two, with experts, in bf16; their types stay."""
    torch.manual_seed(0)
    many = {**SMALL, "num_key_value_heads": 2}
    opt = {**SMALL, "ffn_dim": 96, "word_embed_proj_dim": 48}
    taken = {
        "mixtral": (MixtralForCausalLM(MixtralConfig(**many, num_local_experts=4)), 128),
        "opt": (OPTForCausalLM(OPTConfig(**opt)), 128),
        "bf16": (LlamaForCausalLM(LlamaConfig(**many)).bfloat16(), 128),
    }
    for name, (model, context) in taken.items():
        source = saved(tmp_path / name, model)
        facts = base.fetch(section(source), tmp_path / "out" / name)
        assert facts.context == context, name
        again = load_file(tmp_path / "out" / name / "model.safetensors")
        for key, weight in load_file(source / "model.safetensors").items():
            assert weight.dtype == again[key].dtype
            assert torch.equal(weight, again[key]), key


SHAPES: dict[str, dict[str, Any]] = {
    "gpt2": {"n_embd": 48, "n_layer": 2, "n_head": 4, "n_positions": 128},
    "gpt_neo": {"num_layers": 2, "num_heads": 4, "attention_types": [[["global", "local"], 1]]},
    "gpt_neox": {},
    "bloom": {"n_layer": 2, "n_head": 4},
    "mpt": {"d_model": 48, "n_layers": 2, "n_heads": 4, "max_seq_len": 128},
    "opt": {"ffn_dim": 96, "word_embed_proj_dim": 48},
    "phi": {"num_key_value_heads": 2},
    "mistral": {"num_key_value_heads": 2, "sliding_window": 16},
    "gemma2": {"num_key_value_heads": 2, "head_dim": 12, "sliding_window": 16},
    "qwen3_moe": {"num_key_value_heads": 2, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32},
    "mamba": {"state_size": 8},
    "bert": {"is_decoder": True},
}


@pytest.mark.parametrize("name", SHAPES)
def test_every_suitable_decoder_is_accepted(name: str) -> None:
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(CONFIG_MAPPING[name](**{**SMALL, **SHAPES[name]}))
    assert probe.require_causal("it", model, 0, {0}) == 128
    model.generation_config = GenerationConfig(eos_token_id=0, pad_token_id=0, max_new_tokens=5)
    probe.require_generation("it", model, {0}, 128)
