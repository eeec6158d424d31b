"""Logits that are no numbers: the request that made them fails, and nobody else."""

from pathlib import Path

import pytest
from no_memory import expected, run
from transformers import GPT2LMHeadModel

from serve.engine.cache import RowCache
from serve.engine.engine import NON_FINITE, Engine
from serve.engine.model import load
from serve.engine.request import Request


def test_nan_fails_only_the_request_that_produced_it(never_ending: Path, tmp_path: Path) -> None:
    """Also where its prompt is not complete yet."""
    model = GPT2LMHeadModel.from_pretrained(never_ending)
    model.save_pretrained(tmp_path)
    model = load(tmp_path, "cpu", "float32", threads=1)
    model.transformer.wte.weight[399] = float("nan")
    engine = Engine(model, prefill_tokens=32)
    engine.submit(Request("bad", [399] * 60, 5))
    engine.step()
    assert isinstance(engine.passes.cache, RowCache)
    engine.submit(Request("good", [5, 6, 7], 5))
    assert len(run(engine)["good"]) == 5
    engine.submit(Request("bad", [399] * 3, 5))
    engine.submit(Request("good", [5, 6, 7], 5))
    assert len(run(engine)["good"]) == 5
    assert [(failure.id, failure.reason) for failure in engine.failures()] == [("bad", NON_FINITE)] * 2


@pytest.mark.parametrize("by", ["its own piece", "cancel"])
def test_nan_does_not_stay_in_a_reused_row(never_ending: Path, tmp_path: Path, by: str) -> None:
    """The long prompt is not complete when the short one overtakes it and takes its place in the cache."""
    GPT2LMHeadModel.from_pretrained(never_ending).save_pretrained(tmp_path)
    model = load(tmp_path, "cpu", "float32", threads=1)
    model.transformer.wte.weight[399] = float("nan")
    engine = Engine(model, prefill_tokens=32)
    engine.submit(Request("bad", [399] * 200, 5))
    engine.step()
    engine.step()
    if by == "cancel":
        engine.cancel("bad")
    good = Request("good", [5, 6, 7], 20)
    engine.submit(good)
    assert run(engine) == {"good": expected(model, good)}
    assert [failure.id for failure in engine.failures()] == ["bad"]


@pytest.mark.parametrize("count", [1, 3])
def test_a_prompt_that_is_not_numbers_fails_beside_those_of_the_same_pass(
    never_ending: Path, tmp_path: Path, count: int
) -> None:
    GPT2LMHeadModel.from_pretrained(never_ending).save_pretrained(tmp_path)
    model = load(tmp_path, "cpu", "float32", threads=1)
    model.transformer.wte.weight[399] = float("nan")
    engine = Engine(model, prefill_tokens=64)
    good = [Request(f"good {index}", [5 + index, 6, 7], 9) for index in range(4)]
    for index, one in enumerate(good):
        engine.submit(one)
        if index < count:
            engine.submit(Request(f"bad {index}", [5, 399, 6], 5))
    made = run(engine)
    assert made == {one.id: expected(model, one) for one in good}
    assert sorted(failure.id for failure in engine.failures()) == [f"bad {index}" for index in range(count)]
