"""The answer-only loss is the loss of the slow way, or it is not used."""

from pathlib import Path

import pytest
import torch
from torch import nn
from transformers import AutoModelForCausalLM, PreTrainedModel

from job.batches import pad
from job.loss import IGNORED, AnswerLoss, choose

IDS = [[5, 6, 7, 8, 0], [9, 10, 0], [11, 12, 13, 14, 15, 16, 0]]
LABELS = [[IGNORED, IGNORED, 7, 8, 0], [IGNORED, 10, 0], [IGNORED] * 5 + [16, 0]]


def load(folder: Path) -> PreTrainedModel:
    model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    return model.eval()


def one_by_one(model: PreTrainedModel) -> torch.Tensor:
    """Each row alone, all logits, torch's own shifted cross entropy."""
    total = torch.tensor(0.0)
    for ids, labels in zip(IDS, LABELS, strict=True):
        logits = model(input_ids=torch.tensor([ids])).logits[0, :-1]
        total = total + nn.functional.cross_entropy(logits, torch.tensor(labels[1:]), reduction="sum")
    return total


@pytest.mark.parametrize("family", ["tiny_base", "tiny_llama"])
@pytest.mark.parametrize("answer_only", [True, False])
def test_loss_and_gradients_are_those_of_rows_alone(
    family: str, answer_only: bool, request: pytest.FixtureRequest
) -> None:
    model = load(request.getfixturevalue(family))
    slow = one_by_one(model)
    slow.backward()
    wanted = [weight.grad.clone() for weight in model.parameters() if weight.grad is not None]
    model.zero_grad()
    fast = AnswerLoss(model, answer_only)(*pad(IDS, LABELS, pad_id=0))
    fast.total.backward()
    found = [weight.grad for weight in model.parameters() if weight.grad is not None]
    assert fast.tokens == 7
    assert torch.allclose(fast.total, slow, rtol=1e-5)
    assert len(found) == len(wanted)
    for left, right in zip(found, wanted, strict=True):
        assert torch.allclose(left, right, atol=1e-5)


@pytest.mark.parametrize("family", ["tiny_base", "tiny_llama"])
def test_known_families_take_the_fast_path(family: str, request: pytest.FixtureRequest) -> None:
    assert choose(load(request.getfixturevalue(family)), *pad(IDS, LABELS, 0)).answer_only


def test_a_model_that_scales_its_logits_takes_the_plain_path(
    tiny_base: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    model = load(tiny_base)
    forward = model.forward

    def scaled(*arguments: object, **options: object) -> object:
        output = forward(*arguments, **options)
        output.logits = output.logits / 2
        return output

    monkeypatch.setattr(model, "forward", scaled)
    with caplog.at_level("INFO"):
        chosen = choose(model, *pad(IDS, LABELS, 0))
    assert not chosen.answer_only
    assert "plain way" in caplog.text
