"""Bases whose files are missing, damaged or of another format; and how a refusal is shown."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from command_line import job
from hostile import Spoil, config, edit, refused, roberta, t5
from safetensors.torch import load_file, save_file

from job.errors import Exit


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
    (own_code, ["needs custom code (auto_map"]),
    (unknown_type, ["model_type 'llama9', which transformers"]),
    (no_type, ["model_type None"]),
    (gptq, ["is quantized (gptq)"]),
    (bitsandbytes, ["is quantized (bitsandbytes)"]),
    (cut, ["model.safetensors is cut off or damaged"]),
    (lfs_pointer, ["Git LFS pointer"]),
    (empty_weights, ["model.safetensors is cut off or damaged"]),
    (lost_shard, ["lacks model-00002-of-00002.safetensors of the 2 weight files"]),
    (broken_config, ["config.json cannot be read"]),
    (wrong_value, ["config.json cannot be used"]),
    (impossible_heads, ["config.json requires"]),
    (no_tokenizer, ["tokenizer"]),
    (empty_tokenizer, ["has no tokenizer: found 1 special tokens and no vocabulary"]),
    (broken_tokenizer, ["has no tokenizer that can be loaded"]),
    (sentencepiece_alone, ["has no tokenizer that can be loaded"]),
]


@pytest.mark.parametrize(("spoil", "says"), FILES, ids=[spoil.__name__ for spoil, _ in FILES])
def test_incomplete_or_unsuitable_bases_are_refused(spoil: Spoil, says: list[str], copy: Path, tmp_path: Path) -> None:
    spoil(copy)
    line = refused(copy, tmp_path)
    assert not [words for words in says if words not in line], line


def test_a_wrong_gguf_name_is_told_the_files_that_are_there(copy: Path, tmp_path: Path) -> None:
    ggufs(copy)
    line = refused(copy, tmp_path, gguf_file="tiny.gguf")
    assert "holds no file 'tiny.gguf'; it holds tiny.Q4_1.gguf, tiny.Q8_0.gguf" in line


def test_a_file_that_is_not_gguf_is_refused(copy: Path, tmp_path: Path) -> None:
    ggufs(copy)
    assert "can" in refused(copy, tmp_path, gguf_file="tiny.Q4_1.gguf")


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
