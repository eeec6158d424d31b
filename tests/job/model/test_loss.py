"""The answer-only loss is the loss of the slow way, gradients and all, or it is not used."""

import random
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import nn
from transformers import (
    AutoModelForCausalLM,
    GPTJConfig,
    GPTJForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
)

from job.data.rows import IGNORE_INDEX
from job.model import head
from job.model.loss import AnswerLoss, Batch, PlainLoss, choose
from job.training.batches import pad

IDS = [
    [5, 6, 7, 8, 0],
    [9, 10, 0],
    [11, 12, 13, 14, 15, 16, 0],
    [6, 0, 5, 9, 9, 9, 9, 9, 17, 0],
    [3, 4, 0],
    [8, 2, 1, 0],
]
PROMPTS = [2, 1, 5, 8, 2, 1]
LABELS = [[IGNORE_INDEX] * prompt + ids[prompt:] for ids, prompt in zip(IDS, PROMPTS, strict=True)]
IN_PLACE = partial(AnswerLoss, in_place=True)
FAMILIES = ["gpt2", "llama", "untied", "biased"]


def model_of(family: str, request: pytest.FixtureRequest) -> PreTrainedModel:
    """Tied and untied embeddings, a padding id without a gradient, an output layer with a bias."""
    torch.manual_seed(0)
    if family == "untied":
        sizes = {"vocab_size": 400, "hidden_size": 48, "intermediate_size": 96, "num_hidden_layers": 2}
        return LlamaForCausalLM(
            LlamaConfig(**sizes, num_attention_heads=4, tie_word_embeddings=False, pad_token_id=0)
        ).eval()
    if family == "biased":
        model = GPTJForCausalLM(
            GPTJConfig(vocab_size=400, n_positions=64, n_embd=48, n_layer=2, n_head=2, rotary_dim=8)
        )
        nn.init.normal_(model.lm_head.bias)
        return model.eval()
    fixture = {"gpt2": "tiny_base", "llama": "tiny_llama"}[family]
    return load(request.getfixturevalue(fixture))


def load(folder: Path) -> PreTrainedModel:
    model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    return model.eval()


def batch(rows: list[int]) -> Batch:
    return pad([IDS[row] for row in rows], [LABELS[row] for row in rows], pad_id=0)


def alone(model: PreTrainedModel, row: int) -> torch.Tensor:
    """One row, all logits, torch's own shifted cross entropy."""
    logits = model(input_ids=torch.tensor([IDS[row]])).logits[0, :-1]
    return nn.functional.cross_entropy(logits, torch.tensor(LABELS[row][1:]), reduction="sum")


def gradients(model: PreTrainedModel) -> dict[str, torch.Tensor]:
    found = {name: weight.grad.clone() for name, weight in model.named_parameters() if weight.grad is not None}
    model.zero_grad()
    return found


def mixes() -> Iterator[list[list[int]]]:
    """All rows, dealt out to batches in ways that a run might."""
    chance = random.Random(0)
    for count in (1, 2, 3, 6):
        rows = chance.sample(range(len(IDS)), len(IDS))
        yield [rows[start::count] for start in range(count)]


@pytest.mark.parametrize("mix", mixes(), ids=str)
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("way", [AnswerLoss, IN_PLACE, PlainLoss])
def test_loss_and_gradients_are_those_of_rows_alone(
    way: type[AnswerLoss | PlainLoss], family: str, mix: list[list[int]], request: pytest.FixtureRequest
) -> None:
    model = model_of(family, request)
    slow = torch.stack([alone(model, row) for row in range(len(IDS))]).sum()
    (slow / 7).backward()
    wanted = gradients(model)
    loss = way(model)
    total = torch.stack([loss.backward(*batch(rows), 1 / 7) for rows in mix]).sum()
    found = gradients(model)
    assert torch.allclose(total, slow, rtol=1e-5)
    assert found.keys() == wanted.keys()
    for name, gradient in wanted.items():
        assert torch.allclose(found[name], gradient, atol=1e-5), name
    measured = [loss.measure(*batch(rows)) for rows in mix]
    assert torch.allclose(torch.stack([sums.total for sums in measured]).sum(), slow, rtol=1e-5)
    assert sum(int(sums.tokens) for sums in measured) == sum(map(len, IDS)) - sum(PROMPTS)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_rows_loss_does_not_depend_on_its_neighbours(family: str, request: pytest.FixtureRequest) -> None:
    model = model_of(family, request)
    loss = AnswerLoss(model)
    for row in range(len(IDS)):
        expected = float(alone(model, row).detach())
        others = [other for other in range(len(IDS)) if other != row]
        with_others = loss.measure(*batch([row, *others])).total - loss.measure(*batch(others)).total
        assert float(loss.measure(*batch([row])).total) == pytest.approx(expected, rel=1e-5)
        assert float(with_others) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("way", [AnswerLoss, PlainLoss])
def test_each_rows_share_is_that_of_the_row_alone(
    way: type[AnswerLoss | PlainLoss], family: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = model_of(family, request)
    for block in (1024, 4):  # rows may end within a block of positions
        monkeypatch.setattr("job.model.loss.BLOCK", block)
        rows = [3, 0, 5, 1, 4, 2]
        found = way(model).measure_rows(*batch(rows))
        together = way(model).measure(*batch(rows))
        assert [values.shape for values in found] == [(6,)] * 3
        assert found.total.tolist() == pytest.approx([alone(model, row).item() for row in rows], rel=1e-5)
        assert found.tokens.tolist() == [len(IDS[row]) - PROMPTS[row] for row in rows]
        likeliest = [int(way(model).measure(*batch([row])).correct) for row in rows]
        assert found.correct.tolist() == likeliest
        assert [int(value) for value in together[1:]] == [int(values.sum()) for values in found[1:]]
        assert float(together.total) == pytest.approx(float(found.total.sum()))


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("way", [AnswerLoss, IN_PLACE])
def test_any_number_of_positions_at_once_gives_the_same(
    way: type[AnswerLoss], family: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = model_of(family, request)
    rows = batch(list(range(len(IDS))))
    whole = float(way(model).backward(*rows, 1.0))
    wanted = gradients(model)
    monkeypatch.setattr(head, "BLOCK", 4)
    monkeypatch.setattr(head, "SOFTMAX_ROWS", 3)
    monkeypatch.setattr(head, "CHUNK", 100)
    assert float(way(model).backward(*rows, 1.0)) == pytest.approx(whole, rel=1e-6)
    for name, gradient in gradients(model).items():
        assert torch.allclose(gradient, wanted[name], atol=1e-5), name


@pytest.mark.parametrize("family", FAMILIES)
def test_in_bfloat16_it_is_as_near_to_the_exact_gradient_as_the_plain_way(
    family: str, request: pytest.FixtureRequest
) -> None:
    model = model_of(family, request)
    rows = batch(list(range(len(IDS))))
    PlainLoss(model).backward(*rows, 1.0)
    exact = gradients(model)
    errors = []
    for way in (AnswerLoss, PlainLoss):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            way(model).backward(*rows, 1.0)
        rounded = gradients(model)
        assert {gradient.dtype for gradient in rounded.values()} == {torch.float32}
        differences = sum(float((rounded[name] - exact[name]).norm() ** 2) for name in exact)
        errors.append((differences / sum(float(gradient.norm() ** 2) for gradient in exact.values())) ** 0.5)
    assert 0 < errors[0] < 0.05
    assert errors[0] < 1.5 * errors[1]


def test_the_loss_of_a_token_that_is_next_to_impossible_is_exact() -> None:
    layer = nn.Linear(1, 3, bias=False)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[0.0], [400.0], [1.0]]))
    hidden = torch.ones(1, 1, requires_grad=True)
    loss, total = head.Head(layer)(hidden, torch.tensor([0]), 1.0, torch.float32)
    loss.backward()
    assert float(total) == loss.item() == 400
    assert float(hidden.grad) == 400
    assert layer.weight.grad is not None
    assert layer.weight.grad.flatten().tolist() == [-1, 1, 0]


def test_a_factor_after_the_loss_is_in_all_gradients() -> None:
    layer = nn.Linear(4, 9)
    hidden, targets = torch.randn(5, 4, requires_grad=True), torch.tensor([0, 8, 3, 3, 1])
    loss, _ = head.Head(layer)(hidden, targets, 0.5, torch.float32)
    (loss * 3).backward()
    found = [tensor.grad.clone() for tensor in (hidden, layer.weight, layer.bias)]
    hidden.grad = None
    layer.zero_grad()
    (1.5 * nn.functional.cross_entropy(layer(hidden), targets, reduction="sum")).backward()
    for gradient, tensor in zip(found, (hidden, layer.weight, layer.bias), strict=True):
        assert torch.allclose(gradient, tensor.grad, atol=1e-6)
    in_place = head.Head(layer, in_place=True)  # on top of the gradient that is there
    loss, _ = in_place(hidden, targets, 0.5, torch.float32)
    with pytest.raises(RuntimeError, match="backward has to start at the loss"):
        (loss * 3).backward()


def test_hooks_see_the_output_layers_gradient_and_frozen_weights_have_none() -> None:
    layer = nn.Linear(4, 9)
    seen: list[torch.Tensor] = []
    layer.weight.register_hook(seen.append)
    layer.bias.requires_grad_(False)
    hidden, targets = torch.randn(5, 4, requires_grad=True), torch.tensor([0, 8, 3, 3, 1])
    head.Head(layer)(hidden, targets, 1.0, torch.float32)[0].backward()
    assert layer.weight.grad is not None and torch.equal(seen[0], layer.weight.grad)
    assert layer.bias.grad is None


def test_the_large_gradient_is_kept_and_not_copied(tiny_base: Path) -> None:
    loss = AnswerLoss(load(tiny_base), in_place=True)
    for _ in range(3):  # the second adds to the first
        loss.backward(*batch([0, 3]), 1.0)
        gradient = loss.layer.weight.grad
        assert gradient is not None and gradient.data_ptr() == loss.head._buffers["gradient"].data_ptr()


def test_dropout_leaves_the_mean_loss_the_same(tiny_base: Path) -> None:
    """Both ways draw other masks; over many the means meet within what chance allows."""
    model = load(tiny_base).train()
    rows = batch(list(range(len(IDS))))
    means, deviations = [], []
    for way in (AnswerLoss, PlainLoss):
        losses = []
        for seed in range(150):
            torch.manual_seed(seed)
            losses.append(float(way(model).measure(*rows).total))
        means.append(torch.tensor(losses).mean())
        deviations.append(torch.tensor(losses).std() / len(losses) ** 0.5)
    assert deviations[0] > 0
    assert abs(means[0] - means[1]) < 4 * (deviations[0] ** 2 + deviations[1] ** 2) ** 0.5


@pytest.mark.parametrize("family", FAMILIES)
def test_known_families_take_the_fast_path(family: str, request: pytest.FixtureRequest) -> None:
    model = model_of(family, request)
    assert choose(model, *batch([0, 3])).answer_only
    assert all(weight.grad is None for weight in model.parameters())


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
        chosen = choose(model, *batch([0, 3]))
    assert not chosen.answer_only
    assert "computing all of them, which is slower" in caplog.text
    with torch.no_grad():
        assert not choose(model, *batch([0, 3])).answer_only


def test_a_model_with_the_same_loss_and_other_gradients_takes_the_plain_path(tiny_base: Path) -> None:
    model = load(tiny_base)
    model.transformer.wte.scale_grad_by_freq = True
    assert choose(model, *batch([0, 3])).answer_only, "autograd knows of it"
    assert not choose(model, *batch([0, 3]), in_place=True).answer_only


def test_a_body_that_needs_input_ids_takes_the_plain_path(tiny_base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = load(tiny_base)
    forward = model.base_model.forward

    def picky(input_ids: torch.Tensor, **options: object) -> object:
        return forward(input_ids=input_ids, **options)

    monkeypatch.setattr(model.base_model, "forward", picky)
    assert not choose(model, *batch([0, 3])).answer_only
