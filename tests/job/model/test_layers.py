"""Exchanged layers compute what the layers in whose place they stand do."""

import json
from pathlib import Path

import pytest
import torch
from torch import nn
from transformers import AutoModelForCausalLM
from transformers.activations import NewGELUActivation

from job.model.layers import Dropout, exchange

CPU = torch.device("cpu")


def test_a_model_is_the_same_function_and_is_saved_the_same(tiny_base: Path, tmp_path: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(tiny_base, dtype=torch.float32).eval()
    ids = torch.arange(20)[None]
    plain = model(ids, labels=ids)
    plain.loss.backward()
    wanted = {name: weight.grad.clone() for name, weight in model.named_parameters()}
    model.zero_grad()
    exchange(model, CPU)
    kinds = {type(module) for module in model.modules()}
    assert Dropout in kinds
    assert not {nn.Dropout, NewGELUActivation} & kinds
    exchanged = model(ids, labels=ids)
    exchanged.loss.backward()
    assert torch.allclose(exchanged.logits, plain.logits, atol=1e-6)
    for name, weight in model.named_parameters():
        assert torch.allclose(weight.grad, wanted[name], atol=1e-5), name
    model.save_pretrained(tmp_path)
    for key, value in json.loads((tiny_base / "config.json").read_text()).items():
        assert json.loads((tmp_path / "config.json").read_text())[key] == value


def test_a_gpu_keeps_torchs_dropout(tiny_base: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(tiny_base)
    exchange(model, torch.device("cuda"))
    assert nn.Dropout in {type(module) for module in model.modules()}


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_dropout_zeroes_at_its_rate_and_keeps_the_mean(p: float, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    ones = torch.ones(401, 1003, dtype=dtype, requires_grad=True)  # not a multiple of four
    dropped = Dropout(p)(ones)
    dropped.sum().backward()
    count = ones.numel()
    deviation = (p * (1 - p) / count) ** 0.5
    zeroes = float((dropped == 0).float().mean())
    assert dropped.dtype == dtype
    assert zeroes == pytest.approx(p, abs=4 * deviation)
    assert set(dropped.detach().float().unique().tolist()) == {0.0, float(torch.tensor(1 / (1 - p), dtype=dtype))}
    assert torch.equal(ones.grad, dropped)
    again = nn.Dropout(p)(ones)
    assert zeroes == pytest.approx(float((again == 0).float().mean()), abs=6 * deviation)


def test_dropout_has_neither_rows_nor_columns_that_go_together() -> None:
    torch.manual_seed(0)
    kept = (Dropout(0.5)(torch.ones(2000, 64)) > 0).double()
    correlation = torch.corrcoef(kept.T) - torch.eye(64)
    assert correlation.abs().max() < 5 / 2000**0.5


def test_dropout_follows_the_seed_and_is_off_in_evaluation() -> None:
    ones = torch.ones(10, 10)
    layer = Dropout(0.5)
    torch.manual_seed(1)
    first = layer(ones)
    torch.manual_seed(1)
    assert torch.equal(layer(ones), first)
    assert not torch.equal(layer(ones), first)
    assert torch.equal(layer.eval()(ones), ones)
    assert torch.equal(Dropout(0.0)(ones), ones)
