"""The last bits of the logits: the same in any company, or the log says that they are not."""

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from architectures import MODELS, SIZES, build
from transformers import PreTrainedModel

from serve.engine import verify
from serve.engine.model import _dtype, _PackedLinear, load
from serve.engine.request import Request


def bits(model: PreTrainedModel, asked: list[Request], rows: int) -> dict[str, torch.Tensor]:
    """Every logit behind each prompt and each token of its answer."""
    rehearsal = verify._ForcedEngine(
        model, {one.id: [7 + index % 50 for index in range(one.max_new_tokens)] for one in asked}, rows
    )
    for one in asked:
        rehearsal.submit(one)
    while not rehearsal.idle:
        rehearsal.step()
    return {id: torch.stack(lines) for id, lines in rehearsal.logits_of.items()}


@pytest.fixture
def own_threads() -> Iterator[None]:
    """The number of threads is as before afterwards."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


DENSE = [
    "gpt2", "gpt_neox", "llama", "mistral, window 8", "mistral, window 100", "qwen2", "qwen3", "gemma3_text", "phi3",
    "opt", "olmo2", "granite", "smollm3", "stablelm", "starcoder2", "wide llama", "wide gemma",
]  # fmt: skip

WIDE = {"wide llama": ("llama", SIZES | {"intermediate_size": 1536}),
        "wide gemma": ("gemma", SIZES | {"intermediate_size": 1536})}  # fmt: skip
"""So wide that torch shares an activation's numbers out to threads."""

# where the processor computes in bfloat16; elsewhere the server takes float32 and refuses bfloat16
COMPUTED_IN = ["float32"] + ["bfloat16"] * (_dtype(torch.device("cpu"), "auto") == torch.bfloat16)


def test_where_the_processor_does_not_compute_in_bfloat16_it_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", dict)
    assert _dtype(torch.device("cpu"), "auto") == torch.float32
    with pytest.raises(ValueError, match="dtype: found bfloat16, expected auto"):
        _dtype(torch.device("cpu"), "bfloat16")


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("dtype", COMPUTED_IN)
@pytest.mark.parametrize("name", DENSE)
def test_logits_of_dense_models_do_not_depend_on_the_batch(
    name: str, dtype: Any, threads: int, tmp_path: Path, caplog: pytest.LogCaptureFixture, own_threads: None
) -> None:
    build(*(MODELS | WIDE)[name], tmp_path)
    model = load(tmp_path, "cpu", dtype, threads=threads)
    assert {layer.dtype for layer in model.modules() if isinstance(layer, _PackedLinear)} == {getattr(torch, dtype)}
    assert "last bits" not in caplog.text
    torch.manual_seed(2)
    asked = [
        Request(str(length), torch.randint(3, 90, (length,)).tolist(), count)
        for length, count in [(70, 6), (1, 30), (64, 3), (33, 9), (5, 1), (100, 12), (2, 2), (63, 4)]
    ]
    alone = {one.id: bits(model, [one], 1)[one.id] for one in asked}
    for rows in (3, 8):
        together = bits(model, asked, rows)
        assert [id for id in alone if not torch.equal(alone[id], together[id])] == []


@pytest.mark.parametrize("name", ["mixtral", "qwen2_moe", "olmoe", "deepseek_v3"])
def test_a_mixture_of_experts_warns_that_answers_depend_on_the_batch(
    name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    build(*MODELS[name], tmp_path)
    with caplog.at_level(logging.WARNING):
        load(tmp_path, "cpu", "float32", threads=1)
    assert "this model's logits depend, in the last bits, on the requests in the same batch" in caplog.text
