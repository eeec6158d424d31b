"""Drawing tokens: transformers' distributions, and the same token for a row in whatever company, to the last bit."""

from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import (
    GenerationConfig,
    LogitsProcessorList,
    MinNewTokensLengthLogitsProcessor,
    MinPLogitsWarper,
    NoRepeatNGramLogitsProcessor,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from serve.engine import sampling
from serve.engine.request import Request
from serve.engine.sampling import Penalties, choose, generator

OFF = Penalties()


@dataclass
class Row:
    request: Request
    generator: torch.Generator
    generated: list[int] = field(default_factory=list)


def row(seed: int | None = 0, prompt: list[int] | None = None, **wishes: Any) -> Row:
    return Row(Request("x", prompt or [1], 1, seed=seed, **wishes), generator(seed))


def counts(logits: torch.Tensor, draws: int = 6000, **wishes: Any) -> torch.Tensor:
    """How often each token is drawn, by rows of their own seeds beside each other."""
    rows = [row(seed, **wishes) for seed in range(100)]
    found = torch.zeros(logits.numel())
    for _ in range(draws // len(rows)):
        for token in choose(logits.expand(len(rows), -1).contiguous(), rows, OFF):
            found[token] += 1
    return found / draws


def transformers_distribution(logits: torch.Tensor, **wishes: float) -> torch.Tensor:
    warpers = LogitsProcessorList([TemperatureLogitsWarper(float(wishes["temperature"]))])
    if top_k := int(wishes.get("top_k", 0)):
        warpers.append(TopKLogitsWarper(min(top_k, logits.numel())))
    if (top_p := wishes.get("top_p", 1.0)) < 1:
        warpers.append(TopPLogitsWarper(top_p))
    if min_p := wishes.get("min_p"):
        warpers.append(MinPLogitsWarper(min_p))
    ids: Any = torch.ones(1, 1, dtype=torch.long)
    scores: Any = logits[None]
    return warpers(ids, scores)[0].softmax(-1)


WISHES = [
    {"temperature": 1.0},
    {"temperature": 0.5},
    {"temperature": 1.0, "top_k": 3},
    {"temperature": 1.0, "top_p": 0.8},
    {"temperature": 1.0, "top_p": 0.01},
    {"temperature": 2.0, "top_k": 4, "top_p": 0.7},
    {"temperature": 1.0, "top_k": 10**9, "top_p": 0.999},
    {"temperature": 1.0, "min_p": 0.2},
    {"temperature": 1.5, "min_p": 0.1, "top_p": 0.6},
    {"temperature": 1.0, "min_p": 0.9, "top_p": 0.9},
    {"temperature": 1.0, "min_p": 0.05, "top_k": 5, "top_p": 0.95},
]
MIX: list[dict[str, float]] = [
    {},
    *WISHES,
    {"temperature": 0.7, "top_k": 50},
    {"temperature": 0.7, "top_k": 50, "top_p": 0.5},
    {"temperature": 5.0, "top_k": 256},
    {"temperature": 5.0, "top_k": 257, "min_p": 0.01},
    {"temperature": 5.0, "top_k": 3000, "top_p": 0.9},
]
"""Settings that meet in one batch."""


@pytest.mark.parametrize("rounds", [sampling.ROUNDS, 0], ids=["drawn again", "sorted"])
@pytest.mark.parametrize("wishes", WISHES, ids=str)
def test_samples_have_transformers_distribution(
    wishes: dict[str, float], rounds: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sampling, "ROUNDS", rounds)
    logits = torch.tensor([2.0, 1.5, 1.0, 0.0, -1.0, 0.5, -3.0])
    expected = transformers_distribution(logits, **wishes)
    found = counts(logits, **wishes)
    assert torch.allclose(found, expected, atol=0.03)
    assert not found[expected == 0].any()


@pytest.mark.parametrize("rounds", [sampling.ROUNDS, 0], ids=["drawn again", "sorted"])
def test_top_p_of_a_large_vocabulary_keeps_what_transformers_keeps(
    rounds: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sampling, "ROUNDS", rounds)
    logits = torch.randn(5000, generator=torch.Generator().manual_seed(0)) * 3
    kept = transformers_distribution(logits, temperature=1.0, top_p=0.7) > 0
    found = counts(logits, temperature=1.0, top_p=0.7) > 0
    assert not (found & ~kept).any()
    assert found[kept].float().mean() > 0.5


@pytest.mark.parametrize("top_k", [1, 40, 256, 257, 999])
def test_top_k_keeps_what_transformers_keeps_with_ties_and_without(top_k: int) -> None:
    for logits in (torch.linspace(0, 1, 1000), (torch.arange(1000) % 250) / 250, torch.zeros(1000)):
        kept = transformers_distribution(logits, temperature=1.0, top_k=top_k) > 0
        found = counts(logits, 4000, temperature=1.0, top_k=top_k) > 0
        assert not (found & ~kept).any()
        assert found[kept].float().mean() > 0.9


def test_as_many_of_equal_tokens_as_top_p_needs() -> None:
    found = counts(torch.zeros(1000), 20000, temperature=1.0, top_p=0.305) > 0
    assert found.nonzero()[:, 0].tolist() == list(range(305))


def test_rounding_never_draws_a_token_after_the_last() -> None:
    weights = torch.zeros(1, sampling.BLOCK * 3)
    weights[0, 5], weights[0, sampling.BLOCK + 7] = 0.25, 0.75
    draws = torch.tensor([0.0, 0.2499, 0.2501, 1.0], dtype=torch.float64).clamp(max=sampling.LARGEST_DRAW)[:, None]
    assert sampling._inverse_cdf(weights.expand(4, -1), draws).tolist() == [
        5,
        5,
        sampling.BLOCK + 7,
        sampling.BLOCK + 7,
    ]


LOGITS = torch.randn(24, 50257, generator=torch.Generator().manual_seed(1)) * 4


def rounded(logits: torch.Tensor) -> torch.Tensor:
    """As bfloat16 leaves them: with many ties."""
    return logits.bfloat16().float()


@settings(max_examples=40, deadline=None)
@given(
    mix=st.lists(st.tuples(st.sampled_from(MIX), st.integers(0, 23)), min_size=1, max_size=24),
    threads=st.sampled_from([1, 2]),
    ties=st.booleans(),
)
def test_a_row_draws_the_same_tokens_in_any_batch(
    mix: list[tuple[dict[str, Any], int]], threads: int, ties: bool
) -> None:
    logits = rounded(LOGITS) if ties else LOGITS
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        together = [row(seed=place, **wishes) for wishes, place in mix]
        alone = [row(seed=place, **wishes) for wishes, place in mix]
        lines = [place for _, place in mix]
        for step in range(2):
            turned = [(place + step) % 24 for place in lines]
            expected = [choose(logits[at][None], [one], OFF)[0] for at, one in zip(turned, alone, strict=True)]
            assert choose(logits[turned], together, OFF) == expected
    finally:
        torch.set_num_threads(before)


def test_the_sums_of_a_row_do_not_depend_on_the_batch() -> None:
    scores = torch.nn.functional.pad(rounded(LOGITS), (0, -50257 % sampling.BLOCK), value=-torch.inf)
    probabilities = scores.softmax(-1)
    tokens = probabilities.argsort(-1, descending=True)[:, 700]
    sums, masses = sampling._running_sums(probabilities), sampling._mass_before(probabilities, tokens)
    for line in range(0, 24, 5):
        one = slice(line, line + 1)
        assert torch.equal(scores[one].softmax(-1), probabilities[one])
        assert torch.equal(sampling._running_sums(probabilities[one]), sums[one])
        assert torch.equal(sampling._mass_before(probabilities[one], tokens[one]), masses[one])


def test_equal_tokens_within_top_k_are_in_the_same_order_beside_a_larger_top_k() -> None:
    logits = torch.zeros(50257)
    logits[torch.randperm(50257, generator=torch.Generator().manual_seed(0))[:50]] = torch.arange(1, 26).repeat(2) / 25
    larger = row(temperature=1.0, top_k=256)
    for seed in range(100):
        alone = choose(logits[None], [row(seed, temperature=1.0, top_k=50)], OFF)
        beside = choose(torch.stack([logits, LOGITS[0]]), [row(seed, temperature=1.0, top_k=50), larger], OFF)
        assert beside[:1] == alone


def test_greedy_rows_are_greedy_beside_rows_that_sample() -> None:
    rows = [row(temperature=0.0 if index % 2 else 2.0) for index in range(24)]
    chosen = choose(LOGITS, rows, OFF)
    assert chosen[1::2] == LOGITS.argmax(-1).tolist()[1::2]
    assert chosen[::2] != LOGITS.argmax(-1).tolist()[::2]


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("wishes", [{}, *WISHES], ids=str)
def test_logits_that_are_nan_do_not_stop_the_engine(bad: float, wishes: dict[str, Any]) -> None:
    logits = torch.stack([torch.full((700,), bad), torch.linspace(-3, 3, 700)])
    bad_one, good_one = choose(logits, [row(**wishes), row(**wishes)], OFF)
    assert 0 <= bad_one < 700
    assert good_one == choose(logits[1:], [row(**wishes)], OFF)[0]


def test_nothing_is_read_back_from_the_device_before_all_tokens_are_drawn() -> None:
    """On "meta", where there is nothing to read: it raises. A GPU is waited for once, when the tokens are there."""
    rows = [row(prompt=[1, 2, 1], **wishes) for wishes in MIX]
    logits = torch.empty(len(rows), 50257, device="meta", dtype=torch.bfloat16)
    drawn = sampling._sample(Penalties(1.2, 2).apply(logits, rows)[1:], rows[1:])
    assert (drawn.shape, drawn.device.type) == ((len(rows) - 1,), "meta")
    with pytest.raises((RuntimeError, NotImplementedError)):
        drawn.tolist()


def test_a_request_without_a_seed_draws_differently_each_time() -> None:
    rows = [row(None, temperature=1.0) for _ in range(24)]
    assert len(set(choose(torch.zeros(24, 50257), rows, OFF))) > 20


@settings(max_examples=60, deadline=None)
@given(
    histories=st.lists(st.lists(st.integers(0, 5), min_size=1, max_size=12), min_size=1, max_size=5),
    repetition=st.sampled_from([1.0, 1.5, 0.7]),
    ngram=st.integers(0, 4),
)
def test_penalties_are_transformers_for_rows_of_unlike_lengths(
    histories: list[list[int]], repetition: float, ngram: int
) -> None:
    logits = torch.randn(len(histories), 8, generator=torch.Generator().manual_seed(len(histories)))
    rows = [Row(Request("x", ids[:1], 1), generator(0), ids[1:]) for ids in histories]
    config = GenerationConfig(repetition_penalty=repetition, no_repeat_ngram_size=ngram)
    found = Penalties.published(config).apply(logits, rows)
    processors = LogitsProcessorList([RepetitionPenaltyLogitsProcessor(repetition)])
    if ngram:
        processors.append(NoRepeatNGramLogitsProcessor(ngram))
    for index, ids in enumerate(histories):
        history: Any = torch.tensor([ids])
        line: Any = logits[index][None].clone()
        assert torch.equal(found[index], processors(history, line)[0])


def test_penalties_hold_for_rows_that_sample_too() -> None:
    rows = [row(seed, prompt=[3, 1, 2, 3], temperature=1.0) for seed in range(300)]
    logits = torch.zeros(300, 5)
    assert set(choose(logits, rows, OFF)) == {0, 1, 2, 3, 4}
    assert set(choose(logits, rows, Penalties(ngram=2))) == {0, 2, 3, 4}


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_row_that_is_too_short_does_not_end_and_its_neighbours_may(temperature: float) -> None:
    """As MinNewTokensLengthLogitsProcessor has it; an id that the model does not have does no harm."""
    logits, ends = torch.randn(50, generator=torch.Generator().manual_seed(1)), {3, 7, 10**6}
    logits[[3, 7]] = torch.tensor([30.0, 29.0])
    processor = MinNewTokensLengthLogitsProcessor(1, 5, torch.tensor([3, 7]), device="cpu")
    for said in range(7):
        rows = [row(0, temperature=temperature, min_new_tokens=least) for least in (5, 0, 3)]
        for one in rows:
            one.generated = [9] * said
        ids: Any = torch.ones(1, 1 + said, dtype=torch.long)
        allowed = processor(ids, logits[None].clone())[0] > -torch.inf
        lines = logits.expand(3, -1).contiguous()
        first, second, third = choose(lines, rows, OFF, ends)
        assert bool(allowed[3]) == (first in ends) == (said >= 5)
        assert second in ends and (third in ends) == (said >= 3)
        assert torch.equal(lines, logits.expand(3, -1)), "the caller's logits are left alone"
