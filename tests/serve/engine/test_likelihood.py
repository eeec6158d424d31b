"""Log-probabilities: those of transformers, alone and in a batch, whatever the sampling settings."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from generated import EOS, ids, requests, run
from transformers import PreTrainedModel

from serve.engine import attention
from serve.engine.engine import Engine
from serve.engine.likelihood import log_probabilities
from serve.engine.model import load
from serve.engine.request import Request, Token
from serve.engine.row import Row
from serve.engine.sampling import Penalties, generator


def made(engine: Engine, asked: list[Request]) -> dict[str, list[Token]]:
    for one in asked:
        engine.submit(one)
    return run(engine)


def by_log_softmax(model: PreTrainedModel, prompt: list[int], answer: list[int]) -> list[float]:
    logits = model(torch.tensor([[*prompt, *answer]])).logits[0].float()
    found = logits.log_softmax(-1)[len(prompt) - 1 : -1].gather(1, torch.tensor(answer)[:, None])
    return [float(value) for value in found[:, 0]]


@pytest.fixture(scope="module")
def exact(published: Path) -> PreTrainedModel:
    return load(published, "cpu", "float32", threads=1)


@pytest.fixture(params=["batched", "single"])
def engine(request: pytest.FixtureRequest, exact: PreTrainedModel, published: Path) -> Engine:
    if request.param == "batched":
        return Engine(exact, max_rows=4)
    alone = load(published, "cpu", "float32", threads=1)
    alone.set_attn_implementation("sdpa")
    built = Engine(alone)
    assert built.passes.one_row and alone.config._attn_implementation != attention.NAME
    return built


def test_those_of_transformers_score_by_score(engine: Engine, exact: PreTrainedModel) -> None:
    asked = [replace(one, max_new_tokens=8, logprobs=True) for one in requests(6) if one.final_length < 100]
    for id, tokens in made(engine, asked).items():
        (one,) = [one for one in asked if one.id == id]
        prompt = torch.tensor([one.prompt])
        output = exact.generate(
            prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=8, do_sample=False, pad_token_id=EOS,
            return_dict_in_generate=True, output_scores=True,
        )  # fmt: skip
        scores = exact.compute_transition_scores(output.sequences, output.scores, normalize_logits=True)[0]
        assert output.sequences[0, len(one.prompt) :].tolist() == ids(tokens)
        assert [token.logprob for token in tokens] == pytest.approx(scores.tolist(), abs=1e-4)


def test_of_the_model_itself_before_temperature_penalties_and_a_least_length(
    engine: Engine, exact: PreTrainedModel
) -> None:
    engine._penalties = Penalties(repetition=2.0, ngram=2)
    asked = [
        Request("hot", [5, 6, 7], 6, temperature=1.7, top_k=20, top_p=0.9, seed=3, logprobs=True),
        Request("long", [8, 9], 6, min_new_tokens=6, logprobs=True),
    ]
    for id, tokens in made(engine, asked).items():
        (one,) = [one for one in asked if one.id == id]
        expected = by_log_softmax(exact, one.prompt, ids(tokens))
        assert [token.logprob for token in tokens] == pytest.approx(expected, abs=1e-4)


def test_only_for_those_who_ask_and_with_the_same_answers(engine: Engine) -> None:
    asked = [replace(one, max_new_tokens=5, logprobs=number % 2 == 0) for number, one in enumerate(requests(8))]
    asked = [one for one in asked if one.final_length < 128]
    found = made(engine, asked)
    for one in asked:
        assert all((token.logprob is not None) == one.logprobs for token in found[one.id])
    plain = made(engine, [replace(one, logprobs=False) for one in asked])
    assert {id: ids(tokens) for id, tokens in found.items()} == {id: ids(tokens) for id, tokens in plain.items()}


@pytest.mark.parametrize("vocabulary", [50, 256, 400, 50257])
def test_to_the_last_bit_in_any_company(vocabulary: int) -> None:
    logits = torch.randn(9, vocabulary, generator=torch.Generator().manual_seed(0)) * 5
    rows = [Row(Request(str(index), [1], 1, logprobs=True), generator(0)) for index in range(9)]
    tokens = [index * 5 for index in range(9)]
    before = logits.clone()
    together = log_probabilities(logits, rows, tokens)
    assert torch.equal(logits, before)
    assert together == [
        log_probabilities(logits[index : index + 1], rows[index : index + 1], tokens[index : index + 1])[0]
        for index in range(9)
    ]
    expected = logits.double().log_softmax(-1)[torch.arange(9), torch.tensor(tokens)]
    assert together == pytest.approx(expected.tolist(), abs=1e-5)
