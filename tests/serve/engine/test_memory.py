"""What loading a model takes of memory, and the context that is left."""

import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from checkout import ROOT
from served import Served
from transformers import AutoModelForCausalLM, GenerationConfig, LlamaConfig, LlamaForCausalLM

from serve.engine import model, promises
from serve.engine.engine import Engine
from serve.engine.model import load


def python(program: str, *arguments: str, **environment: str) -> str:
    """What the program prints last, in a process of its own."""
    ended = subprocess.run(
        [sys.executable, "-c", program, *arguments], cwd=ROOT, env={**os.environ, **environment},
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    return ended.stdout.strip().splitlines()[-1]


def test_a_process_computes_with_as_many_threads_as_it_is_told(never_ending: Path) -> None:
    program = """
import sys, torch
from pathlib import Path
from serve.engine.model import load
load(Path(sys.argv[1]), "cpu", "auto")
print(torch.get_num_threads())
"""
    assert python(program, str(never_ending), OMP_NUM_THREADS="1") == "1"
    assert python(program, str(never_ending), OMP_NUM_THREADS="3") == "3"


LOADING = """
import sys
from pathlib import Path
import transformers.models.llama.modeling_llama
from serve.engine.model import load

def peak():
    return 1024 * int(next(line for line in open("/proc/self/status") if "VmHWM" in line).split()[1])

before = peak()
loaded = load(Path(sys.argv[1]), "cpu", "float32", threads=1)
assert sum(type(module).__name__ == "_PackedLinear" for module in loaded.modules()) == 57
print(peak() - before)
"""


@pytest.mark.parametrize("stored", [torch.float32, torch.bfloat16], ids=str)
def test_packing_takes_no_more_memory_than_the_model(stored: torch.dtype, tmp_path: Path) -> None:
    torch.manual_seed(0)
    made = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=400, max_position_embeddings=128, hidden_size=768, intermediate_size=3072, num_hidden_layers=8,
            num_attention_heads=12, num_key_value_heads=12, bos_token_id=0, eos_token_id=0,
        )
    )  # fmt: skip
    size = 4 * sum(parameter.numel() for parameter in made.parameters())
    made.to(stored).save_pretrained(tmp_path)
    # a file in another format is mapped beside the model that is made of it, before any layer is packed
    mapped = 0 if stored == torch.float32 else size // 2
    compared = (
        48 * 2**20
    )  # activations and caches of the prompts that are compared with generate's; no share of the size
    assert size > 250 * 2**20
    assert int(python(LOADING, str(tmp_path))) < 1.2 * size + mapped + compared


def test_a_model_whose_packed_weights_differ_is_served_with_plain_ones(
    never_ending: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(model, "TOLERANCE", 0.0)
    with caplog.at_level(logging.WARNING):
        loaded = load(never_ending, "cpu", "auto", threads=1)
    assert "packed weights cannot be used for this model (its logits differ by" in caplog.text
    plain = AutoModelForCausalLM.from_pretrained(never_ending, dtype=torch.float32)
    ids = torch.arange(5, 25)[None]
    assert torch.allclose(loaded(ids).logits, plain(ids).logits, atol=1e-5)
    assert not any(type(module).__name__ == "_PackedLinear" for module in loaded.modules())


def test_tied_weights_are_still_there_after_packing(tmp_path: Path) -> None:
    torch.manual_seed(0)
    made = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=4000, max_position_embeddings=64, hidden_size=64, intermediate_size=64, num_hidden_layers=1,
            num_attention_heads=2, num_key_value_heads=2, tie_word_embeddings=True,
        )
    ).eval()  # fmt: skip
    made.save_pretrained(tmp_path)
    ids = torch.arange(5, 25)[None]
    assert torch.allclose(load(tmp_path, "cpu", "float32", threads=1)(ids).logits, made(ids).logits, atol=1e-5)


def test_a_context_smaller_than_promised_is_logged_with_its_reason(never_ending: Path) -> None:
    loaded = load(never_ending, "cpu", "auto", threads=1)
    loaded.generation_config = GenerationConfig(eos_token_id=0, max_new_tokens=300)
    whole = Engine(loaded).limits
    assert whole.context == 4096
    assert promises.unmet_promises(loaded, whole) == []
    small = Engine(loaded, cache_bytes=2**21).limits
    lines = promises.unmet_promises(loaded, small)
    assert len(lines) == 2
    assert lines[0].startswith(f"context: {small.context} tokens for question and answer together")
    assert "config.json promises 4096; the cache has no room for more: see --cache-bytes" in lines[0]
    assert "generation_config.json promises up to 300 tokens" in lines[1]


def test_the_server_logs_a_context_smaller_than_promised(never_ending: Path) -> None:
    with Served(never_ending, "--cache-bytes", str(2**21)) as server:
        pass
    assert "engine: context: " in (said := server.output())
    assert "config.json promises 4096" in said
