"""Bases as people publish them that cannot be fine-tuned here, and those that only look like it.

Each is a tiny random model saved by the real transformers. It is refused with code 2 and one short line that says
what to do, or it is taken and then right.
"""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from command_line import job
from datasets import Dataset
from hostile import SMALL, Spoil, config, edit, refused, saved, section, t5
from safetensors.torch import load_file, save_file
from tokenizers import AddedToken
from transformers import (
    CONFIG_MAPPING,
    AutoModelForCausalLM,
    AutoTokenizer,
    BertConfig,
    BertForMaskedLM,
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    GenerationConfig,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    LlamaModel,
    MixtralConfig,
    MixtralForCausalLM,
    OPTConfig,
    OPTForCausalLM,
    RobertaConfig,
    RobertaForCausalLM,
)

from job.data.encode import encode
from job.errors import ConfigError, Exit
from job.model import base, probe
from serve.http.text import Text


def change_weights(folder: Path, change: Callable[[dict[str, torch.Tensor]], None]) -> None:
    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors", {"format": "pt"})


# --- models of another kind -----------------------------------------------------------------------------------------


def roberta(folder: Path) -> None:
    saved(folder, RobertaForCausalLM(RobertaConfig(**SMALL)))


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
        ("vit", {}, "is no causal language model (vit)"),
    ):
        folder = Path(shutil.copytree(tiny_llama, tmp_path / name))
        (folder / "config.json").write_text(json.dumps({"model_type": name, **values}))
        assert says in refused(folder, tmp_path)


# --- files -----------------------------------------------------------------------------------------------------------


def only_bin(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def adapter(folder: Path) -> None:
    for path in (folder / "config.json", folder / "model.safetensors"):
        path.unlink()
    (folder / "adapter_config.json").write_text(
        json.dumps({"peft_type": "LORA", "base_model_name_or_path": "ada/original", "r": 8})
    )
    save_file({"base_model.model.lora_A.weight": torch.zeros(2, 2)}, folder / "adapter_model.safetensors")


def ggufs(folder: Path) -> None:
    for path in (folder / "config.json", folder / "model.safetensors"):
        path.unlink()
    for name in ("tiny.Q4_1.gguf", "tiny.Q8_0.gguf"):
        (folder / name).write_bytes(b"GGUF")


def gguf_beside_config(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "tiny.Q8_0.gguf")


def another_name(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "consolidated.safetensors")


def own_code(folder: Path) -> None:
    edit(folder / "config.json", model_type="mine", auto_map={"AutoConfig": "code.Config"})


def unknown_type(folder: Path) -> None:
    edit(folder / "config.json", model_type="llama9")


def no_type(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    del config["model_type"]
    (folder / "config.json").write_text(json.dumps(config))


def gptq(folder: Path) -> None:
    edit(folder / "config.json", quantization_config={"quant_method": "gptq", "bits": 4})


def bitsandbytes(folder: Path) -> None:
    edit(folder / "config.json", quantization_config={"quant_method": "bitsandbytes", "load_in_4bit": True})


def cut(folder: Path) -> None:
    whole = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(whole[: len(whole) // 2])


def lfs_pointer(folder: Path) -> None:
    (folder / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 5\n")


def empty_weights(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"")


def lost_shard(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    parts = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    placed = {name: parts[number % 2] for number, name in enumerate(weights)}
    save_file(
        {name: weights[name] for name in weights if placed[name] == parts[0]}, folder / parts[0], {"format": "pt"}
    )
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": placed}))


def broken_config(folder: Path) -> None:
    (folder / "config.json").write_text('{"model_type": "llama",')


def wrong_value(folder: Path) -> None:
    edit(folder / "config.json", hidden_size="many")


def impossible_heads(folder: Path) -> None:
    edit(folder / "config.json", num_key_value_heads=3)


def no_tokenizer(folder: Path) -> None:
    for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"):
        (folder / name).unlink(missing_ok=True)


def empty_tokenizer(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "GPT2Tokenizer"}')


def broken_tokenizer(folder: Path) -> None:
    (folder / "tokenizer.json").write_text("{}")


def sentencepiece_alone(folder: Path) -> None:
    no_tokenizer(folder)
    (folder / "tokenizer.model").write_bytes(b"\x00\x01")


FILES: list[tuple[Spoil, list[str]]] = [
    (only_bin, ["only pytorch_model.bin", "save_pretrained('converted')", "model.base=converted", "refs/pr/1"]),
    (adapter, ["is a LoRA adapter of ada/original: merge it first", "merge_and_unload()"]),
    (ggufs, ["set model.gguf_file to one of tiny.Q4_1.gguf, tiny.Q8_0.gguf"]),
    (gguf_beside_config, ["set model.gguf_file=tiny.Q8_0.gguf"]),
    (another_name, ["only consolidated.safetensors", "expected model.safetensors"]),
    (own_code, ["needs code of its own (auto_map"]),
    (unknown_type, ["model_type 'llama9', which transformers"]),
    (no_type, ["model_type None"]),
    (gptq, ["is quantized (gptq)"]),
    (bitsandbytes, ["is quantized (bitsandbytes)"]),
    (cut, ["model.safetensors is cut off or damaged"]),
    (lfs_pointer, ["pointer of Git LFS"]),
    (empty_weights, ["model.safetensors is cut off or damaged"]),
    (lost_shard, ["lacks model-00002-of-00002.safetensors of the 2 files"]),
    (broken_config, ["config.json cannot be read"]),
    (wrong_value, ["config.json cannot be used"]),
    (impossible_heads, ["config.json asks for"]),
    (no_tokenizer, ["tokenizer"]),
    (empty_tokenizer, ["has no tokenizer: found 1 special tokens and no vocabulary"]),
    (broken_tokenizer, ["has no tokenizer that can be loaded"]),
    (sentencepiece_alone, ["has no tokenizer that can be loaded"]),
]


@pytest.mark.parametrize(("spoil", "says"), FILES, ids=[spoil.__name__ for spoil, _ in FILES])
def test_files_that_are_no_whole_decoder_are_refused(spoil: Spoil, says: list[str], copy: Path, tmp_path: Path) -> None:
    spoil(copy)
    line = refused(copy, tmp_path)
    assert not [words for words in says if words not in line], line


def test_a_wrong_gguf_name_is_told_the_files_that_are_there(copy: Path, tmp_path: Path) -> None:
    ggufs(copy)
    line = refused(copy, tmp_path, gguf_file="tiny.gguf")
    assert "holds no file 'tiny.gguf'; it holds tiny.Q4_1.gguf, tiny.Q8_0.gguf" in line


def test_a_file_that_is_no_gguf(copy: Path, tmp_path: Path) -> None:
    ggufs(copy)
    assert "can" in refused(copy, tmp_path, gguf_file="tiny.Q4_1.gguf")


# --- weights ---------------------------------------------------------------------------------------------------------


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
    (other_size, "has the size (48, 96), config.json asks for (48, 64)"),
    (nan_weights, "no numbers (NaN or infinite): model.norm.weight"),
    (infinite_weights, "no numbers (NaN or infinite): model.embed_tokens.weight"),
    (too_large_to_compute, "predicts no numbers"),
    (padding_outside, "the padding token '<pad>' has the id 306, outside the model's 306 embeddings"),
    (padding_outside_in_config, "the padding id 400 in config.json is outside the vocabulary of 400"),
    (end_outside, "embeddings lack: '<end>' (306)"),
    (stop_outside, "the end-of-text id 128009 in generation_config.json is outside"),
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
def test_a_mark_that_nobody_writes_may_have_no_embedding(
    special: bool, normalized: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Gemma 3 shares its tokenizer with the models that see; its `<image_soft_token>` lies beyond the table."""
    caplog.set_level("INFO")
    config = Gemma3TextConfig(**{**SMALL, "vocab_size": 306}, num_key_value_heads=2, head_dim=12)
    source = saved(tmp_path / "source", Gemma3ForCausalLM(config))
    mark = "<image_soft_token>"
    beyond(source, AddedToken(mark, special=special, normalized=normalized))
    base.fetch(section(source), tmp_path / "base")
    assert f"that the model's 306 embeddings lack, and that nobody writes: {mark}; rows" in caplog.text
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


def test_other_heads_and_tied_weights_are_nothing_missing(tiny_base: Path, tmp_path: Path) -> None:
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
def test_buffers_of_older_versions_and_heads_are_no_weights_left_out(
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


# --- what the model does ---------------------------------------------------------------------------------------------


def test_decoders_of_several_kinds_are_taken(tmp_path: Path) -> None:
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
def test_no_decoder_is_refused_by_mistake(name: str) -> None:
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(CONFIG_MAPPING[name](**{**SMALL, **SHAPES[name]}))
    assert probe.require_causal("it", model, 0, {0}) == 128
    model.generation_config = GenerationConfig(eos_token_id=0, pad_token_id=0, max_new_tokens=5)
    probe.require_generation("it", model, {0}, 128)


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


# --- as a user meets them --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "command", "says"),
    [
        (roberta, "run", "sees the tokens that it must predict"),
        (t5, "check", "is an encoder-decoder"),
        (adapter, "run", "is a LoRA adapter of ada/original"),
    ],
)
def test_the_last_line_says_it(make: Spoil, command: str, says: str, tiny_llama: Path, tmp_path: Path) -> None:
    source = tmp_path / "source"
    if make is adapter:
        shutil.copytree(tiny_llama, source)
    make(source)
    ended = job(command, config(tmp_path, source))
    assert ended.returncode == Exit.CONFIG, ended.stdout + ended.stderr
    last = ended.stdout.splitlines()[-1]
    assert last.startswith("error (config, exit 2): model.base: ")
    assert says in last
    assert "Traceback" not in ended.stdout + ended.stderr
    assert not (tmp_path / "published").exists()


def test_a_padding_id_of_minus_one_stands_for_none(tiny_llama: Path, tmp_path: Path) -> None:
    """Old Llama configs have it; torch takes it for the last token, whose embedding would then never be trained."""
    folder = shutil.copytree(tiny_llama, tmp_path / "llama")
    edit(folder / "config.json", pad_token_id=-1)
    base.fetch(section(folder), tmp_path / "base")
    assert json.loads((tmp_path / "base/config.json").read_text()).get("pad_token_id") is None
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "base")
    assert model.get_input_embeddings().padding_idx is None
    assert model.generation_config.pad_token_id == 0
