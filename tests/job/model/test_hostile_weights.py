"""Bases whose weights do not fit their config or tokenizer, and those that only look like it."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from datasets import Dataset
from hostile import SMALL, Spoil, edit, refused, saved, section
from safetensors.torch import load_file, save_file
from tokenizers import AddedToken
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    LlamaConfig,
    LlamaForCausalLM,
)

from job.data.encode import encode
from job.model import base
from serve.http.text import Text


def change_weights(folder: Path, change: Callable[[dict[str, torch.Tensor]], None]) -> None:
    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors", {"format": "pt"})


def no_head(folder: Path) -> None:
    weights = AutoModelForCausalLM.from_pretrained(folder).model
    weights.save_pretrained(folder)
    edit(folder / "config.json", tie_word_embeddings=False)


def no_layer(folder: Path) -> None:
    edit(folder / "config.json", num_hidden_layers=3)


def layers_left_out(folder: Path) -> None:
    edit(folder / "config.json", num_hidden_layers=1)


def bias_switched_off(folder: Path) -> None:
    """A "llamafied" Qwen: its projections have a bias, which Llama's config leaves out unless it is told."""
    config = LlamaConfig(**SMALL, num_key_value_heads=2, attention_bias=True)
    LlamaForCausalLM(config).save_pretrained(folder)
    edit(folder / "config.json", attention_bias=False)


def bias_of_the_head(folder: Path) -> None:
    change_weights(folder, lambda weights: weights.update({"lm_head.bias": torch.ones(400)}))


def bias_of_a_norm_without_prefix(folder: Path) -> None:
    change_weights(folder, lambda weights: weights.update({"norm.bias": torch.ones(48)}))


def scales_of_weights(folder: Path) -> None:
    name = "model.layers.0.mlp.up_proj.weight_scale"
    change_weights(folder, lambda weights: weights.update({name: torch.ones(96)}))


def adapter_not_merged(folder: Path) -> None:
    name = "model.layers.1.mlp.up_proj.lora_A.default.weight"
    change_weights(folder, lambda weights: weights.update({name: torch.ones(4, 48)}))


def one_more_norm(folder: Path) -> None:
    """As Qwen 3 has one more than Llama."""
    change_weights(folder, lambda weights: weights.update({"model.layers.0.self_attn.q_norm.weight": torch.ones(12)}))


def other_size(folder: Path) -> None:
    edit(folder / "config.json", intermediate_size=64)


def nan_weights(folder: Path) -> None:
    change_weights(folder, lambda weights: weights["model.norm.weight"].view(-1)[3:4].fill_(float("nan")))


def infinite_weights(folder: Path) -> None:
    change_weights(folder, lambda weights: weights["model.embed_tokens.weight"].view(-1)[7:8].fill_(float("-inf")))


def too_large_to_compute(folder: Path) -> None:
    change_weights(folder, lambda weights: weights["model.layers.0.mlp.up_proj.weight"].fill_(3e38))


def fitted(folder: Path, **tokens: str) -> None:
    """A table of as many rows as the tokenizer had tokens before it got these."""
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModelForCausalLM.from_pretrained(folder)
    model.resize_token_embeddings(len(tokenizer))
    tokenizer.add_special_tokens(tokens)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def padding_outside(folder: Path) -> None:
    fitted(folder, pad_token="<pad>")


def padding_outside_in_config(folder: Path) -> None:
    edit(folder / "config.json", pad_token_id=400)


def end_outside(folder: Path) -> None:
    fitted(folder, eos_token="<end>")


def stop_outside(folder: Path) -> None:
    edit(folder / "generation_config.json", eos_token_id=[0, 128009])


def small_vocabulary(folder: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(folder)
    model.resize_token_embeddings(300)
    model.save_pretrained(folder)


def beyond(folder: Path, *tokens: str | AddedToken, template: str | None = None) -> Path:
    """Tokens that the tokenizer has and the model has no embeddings for."""
    fitted(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens(list(tokens))
    tokenizer.chat_template = template
    tokenizer.save_pretrained(folder)
    return folder


def words_beyond(folder: Path) -> None:
    beyond(folder, "goalkeeper", "<tool>")


def blanks_beyond(folder: Path) -> None:
    beyond(folder, AddedToken("    ", special=True))


def unknown_outside(folder: Path) -> None:
    fitted(folder, unk_token="<unk>")


def start_outside(folder: Path) -> None:
    fitted(folder, bos_token="<start>")


def mark_of_the_template_outside(folder: Path) -> None:
    beyond(folder, "<turn>", "<tool>", template="<turn>{% for m in messages %}{{ m.content }}{% endfor %}")


def mark_of_a_conversation_outside(folder: Path) -> None:
    beyond(
        folder,
        "<system>",
        template="{% for m in messages %}{{ '<system>' if m.role == 'system' }}{{ m.content }}{% endfor %}",
    )


WEIGHTS: list[tuple[Spoil, str]] = [
    (no_head, "lacks weights that LlamaForCausalLM needs and that would start at random: lm_head.weight"),
    (no_layer, "would start at random: model.layers.2.input_layernorm.weight"),
    (layers_left_out, "holds weights of more layers than config.json names: model.layers.1."),
    (bias_switched_off, "config.json leaves out of the model: model.layers.0.self_attn.k_proj.bias"),
    (bias_of_the_head, "config.json leaves out of the model: lm_head.bias"),
    (bias_of_a_norm_without_prefix, "config.json leaves out of the model: norm.bias"),
    (scales_of_weights, "config.json leaves out of the model: model.layers.0.mlp.up_proj.weight_scale"),
    (adapter_not_merged, "config.json leaves out of the model: model.layers.1.mlp.up_proj.lora_A.default.weight"),
    (one_more_norm, "config.json leaves out of the model: model.layers.0.self_attn.q_norm.weight"),
    (other_size, "has the size (48, 96), config.json requires (48, 64)"),
    (nan_weights, "holds weights that are NaN or infinite: model.norm.weight"),
    (infinite_weights, "holds weights that are NaN or infinite: model.embed_tokens.weight"),
    (too_large_to_compute, "predicts NaN or infinity"),
    (padding_outside, "the padding token '<pad>' has the id 306, outside the model's 306 embeddings"),
    (padding_outside_in_config, "the padding id 400 in config.json is outside the vocabulary of 400"),
    (end_outside, "embeddings lack: '<end>' (306)"),
    (stop_outside, "the end-of-sequence id 128009 in generation_config.json is outside"),
    (small_vocabulary, "the tokenizer has ids that the model's 300 embeddings lack"),
    (words_beyond, "embeddings lack: 'goalkeeper' (306); add rows"),
    (blanks_beyond, "embeddings lack: '    ' (306); add rows"),
    (unknown_outside, "embeddings lack: '<unk>' (306)"),
    (start_outside, "embeddings lack: '<start>' (306)"),
    (mark_of_the_template_outside, "embeddings lack: '<turn>' (306); add rows"),
    (mark_of_a_conversation_outside, "embeddings lack: '<system>' (306); add rows"),
]


@pytest.mark.parametrize(("spoil", "says"), WEIGHTS, ids=[spoil.__name__ for spoil, _ in WEIGHTS])
def test_weights_that_do_not_fit_are_refused(spoil: Spoil, says: str, copy: Path, tmp_path: Path) -> None:
    spoil(copy)
    assert says in refused(copy, tmp_path)


@pytest.mark.parametrize("special", [True, False])
@pytest.mark.parametrize("normalized", [True, False])
def test_an_unused_special_token_may_lack_an_embedding(
    special: bool, normalized: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Gemma 3 shares its tokenizer with the models that see; its `<image_soft_token>` lies beyond the table."""
    caplog.set_level("INFO")
    config = Gemma3TextConfig(**{**SMALL, "vocab_size": 306}, num_key_value_heads=2, head_dim=12)
    source = saved(tmp_path / "source", Gemma3ForCausalLM(config))
    mark = "<image_soft_token>"
    beyond(source, AddedToken(mark, special=special, normalized=normalized))
    base.fetch(section(source), tmp_path / "base")
    assert f"that the model's 306 embeddings lack, and that texts do not contain: {mark}; rows" in caplog.text
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "base")
    assert tokenizer.convert_tokens_to_ids(mark) == 306
    pairs = [("What is 1?", f"One{mark} ."), (f"What is {mark}?", "It."), ("What is 1?", "1"), (mark, mark)]
    questions, answers = zip(*pairs, strict=True)
    rows = Dataset.from_dict({"question": questions, "answer": answers, "where": list("1234")})
    encoded, rejected = encode(rows, tokenizer, 64)
    assert [row["where"] for row in encoded] == ["3"]
    assert all(f"holds {mark}, which the tokenizer" in row.reason for row in rejected)
    asked = Text(tmp_path / "base").prompt_ids([{"role": "user", "content": f"What is {mark}?"}])
    assert max(asked) < 306, "a server reads it as plain text"


def test_other_heads_and_tied_weights_do_not_count_as_missing(tiny_base: Path, tmp_path: Path) -> None:
    """GPT-2 ties its output layer; a classifier's head is left over."""
    source = Path(shutil.copytree(tiny_base, tmp_path / "source"))
    change_weights(source, lambda weights: weights.update({"score.weight": torch.ones(2, 48)}))
    assert base.fetch(section(source), tmp_path / "base").context == 128
    change_weights(source, lambda weights: weights.pop("lm_head.weight", torch.ones(1)).sum())
    assert base.fetch(section(source), tmp_path / "again").context == 128


BUFFERS = {
    "llama": [
        ("model.layers.0.self_attn.rotary_emb.inv_freq", (6,)),
        ("model.rotary_emb.inv_freq", (6,)),
        ("model.layers.1.self_attn.rotary_emb.cos_cached", (1, 1, 128, 12)),
    ],
    "gpt2": [
        ("transformer.h.0.attn.bias", (1, 1, 128, 128)),
        ("transformer.h.0.attn.masked_bias", ()),
        ("h.1.attn.bias", (1, 1, 128, 128)),
        ("h.1.attn.masked_bias", ()),
        ("transformer.position_ids", (128,)),
        ("v_head.summary.weight", (1, 48)),
        ("v_head.summary.bias", (1,)),
        ("medusa_head.0.0.linear.weight", (48, 48)),
    ],
}


@pytest.mark.parametrize("kind", BUFFERS)
def test_buffers_and_heads_do_not_count_as_unused_weights(
    kind: str, tiny_base: Path, tiny_llama: Path, tmp_path: Path
) -> None:
    source = Path(shutil.copytree(tiny_base if kind == "gpt2" else tiny_llama, tmp_path / "source"))
    more = {name: torch.ones(shape) for name, shape in BUFFERS[kind]}
    change_weights(source, lambda weights: weights.update(more))
    assert base.fetch(section(source), tmp_path / "base").context == 128


def test_weights_of_the_body_without_its_prefix(tiny_base: Path, tmp_path: Path) -> None:
    """As openai-community/gpt2 is on the Hub."""
    source = Path(shutil.copytree(tiny_base, tmp_path / "source"))
    weights = load_file(source / "model.safetensors")
    bare = {name.removeprefix("transformer."): weight for name, weight in weights.items() if name != "lm_head.weight"}
    bare |= {f"h.{layer}.attn.bias": torch.ones(1, 1, 128, 128) for layer in (0, 1)}
    save_file(bare, source / "model.safetensors", {"format": "pt"})
    base.fetch(section(source), tmp_path / "base")
    again = load_file(tmp_path / "base" / "model.safetensors")
    assert all(torch.equal(weights[name], again[name]) for name in weights)
    edit(source / "config.json", n_layer=1)
    assert "holds weights of more layers than config.json names: h.1.attn." in refused(source, tmp_path)


def test_a_padding_id_of_minus_one_stands_for_none(tiny_llama: Path, tmp_path: Path) -> None:
    """Old Llama configs have it; torch takes it for the last token, whose embedding would then never be trained."""
    folder = shutil.copytree(tiny_llama, tmp_path / "llama")
    edit(folder / "config.json", pad_token_id=-1)
    base.fetch(section(folder), tmp_path / "base")
    assert json.loads((tmp_path / "base/config.json").read_text()).get("pad_token_id") is None
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "base")
    assert model.get_input_embeddings().padding_idx is None
    assert model.generation_config.pad_token_id == 0
