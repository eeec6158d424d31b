"""A base as a GGUF file: a tiny Llama whose weights, settings and tokenizer all lie in the one file."""

import json
from collections.abc import Iterable
from pathlib import Path

import gguf
import pytest
import torch
from hostile import section
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM

from job.data.prompt import prompt_ids
from job.model import base

NAMES = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}
"""What llama.cpp calls the parts of a layer."""


def tensors(model: LlamaForCausalLM) -> Iterable[tuple[str, torch.Tensor]]:
    for name, weight in model.state_dict().items():
        part = name.removesuffix(".weight").removeprefix("model.")
        if part.startswith("layers."):
            _, layer, inner = part.split(".", 2)
            heads = {"q_proj": model.config.num_attention_heads, "k_proj": model.config.num_key_value_heads}
            count = heads.get(inner.rpartition(".")[2])
            if count is not None:  # llama.cpp turns neighbours, transformers turns halves
                weight = weight.view(count, 2, -1, weight.shape[1]).transpose(1, 2).reshape(weight.shape)
            yield f"blk.{layer}.{NAMES[inner]}.weight", weight
        elif part != "lm_head":  # tied
            yield {"embed_tokens": "token_embd.weight", "norm": "output_norm.weight"}[part], weight


@pytest.fixture
def packed(tiny_llama: Path, tmp_path: Path) -> Path:
    """tiny.gguf, and beside it the model that it was made from, in `plain/`."""
    tokenizer, model = AutoTokenizer.from_pretrained(tiny_llama), AutoModelForCausalLM.from_pretrained(tiny_llama)
    model.resize_token_embeddings(len(tokenizer))
    model.save_pretrained(tmp_path / "plain")
    config = model.config
    writer = gguf.GGUFWriter(tmp_path / "tiny.gguf", "llama")
    writer.add_name("tiny")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_rope_dimension_count(config.hidden_size // config.num_attention_heads)
    writer.add_rope_freq_base(10000.0)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(len(tokenizer))
    tokens = sorted(tokenizer.get_vocab(), key=tokenizer.get_vocab().__getitem__)
    merges = json.loads((tiny_llama / "tokenizer.json").read_text())["model"]["merges"]
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(tokens)
    writer.add_token_types([gguf.TokenType.CONTROL, *[gguf.TokenType.NORMAL] * (len(tokens) - 1)])
    writer.add_token_merges([" ".join(pair) for pair in merges])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(0)
    for name, weight in tensors(model):
        array = weight.detach().numpy()
        if name.endswith("ffn_down.weight"):
            kind = gguf.GGMLQuantizationType.Q8_0
            writer.add_tensor(name, gguf.quantize(array, kind), raw_dtype=kind)
        else:
            writer.add_tensor(name, array)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return tmp_path


def test_a_gguf_file_becomes_the_model_that_it_was_made_from(packed: Path, tiny_llama: Path) -> None:
    facts = base.fetch(section(packed, gguf_file="tiny.gguf"), packed / "base")
    assert (facts.context, facts.chat_template) == (128, "Kickoff's")
    found, plain = (AutoModelForCausalLM.from_pretrained(packed / name) for name in ("base", "plain"))
    assert found.dtype == torch.float32
    assert found.state_dict().keys() == plain.state_dict().keys()
    for name, weight in plain.state_dict().items():
        rounded = weight.abs().max() / 127 if "down_proj" in name else 1e-7
        assert (found.state_dict()[name] - weight).abs().max() <= rounded, name
    read, written = AutoTokenizer.from_pretrained(packed / "base"), AutoTokenizer.from_pretrained(tiny_llama)
    text = "What is 12 plus 12?\n\n  Ada's café — 漢字"
    assert read(text, add_special_tokens=False)["input_ids"] == written(text, add_special_tokens=False)["input_ids"]
    assert read.eos_token_id == 0
    assert read.decode(prompt_ids(["Why?"], read)[0]).endswith("Question:\nWhy?\n\nAnswer:\n")
