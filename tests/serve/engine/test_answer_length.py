"""How long an answer is at least and at most, on both paths of the engine: as transformers' generate has it."""

from pathlib import Path
from typing import Any

import pytest
from generated import EOS, answers, generate
from tiny import ROWS
from transformers import AutoTokenizer, PreTrainedModel

from serve.engine.engine import Engine
from serve.engine.model import load
from serve.engine.request import Request


@pytest.fixture(params=["batched", "single"])
def taught(request: pytest.FixtureRequest, published: Path) -> PreTrainedModel:
    """A model that ends its answers, on the fast path and on the slow one."""
    model = load(published, "cpu", "float32", threads=1)
    if request.param == "single":
        model.set_attn_implementation("sdpa")
    assert type(Engine(model).passes).__name__.lower().startswith(request.param)
    return model


def known(published: Path) -> list[list[int]]:
    """Prompts whose answers the model knows and ends."""
    tokenizer: Any = AutoTokenizer.from_pretrained(published)
    chats = [[{"role": "user", "content": row["question"]}] for row in ROWS[:8]]
    texts = [tokenizer.apply_chat_template(chat, add_generation_prompt=True, tokenize=False) for chat in chats]
    return [tokenizer(text)["input_ids"] for text in texts]


def test_an_answer_has_at_least_min_tokens(taught: PreTrainedModel, published: Path) -> None:
    leasts = [0, 1, 6, 7, 8, 12, 20, 25]
    asked = [
        Request(f"r{least}", prompt, 20, min_new_tokens=least)
        for least, prompt in zip(leasts, known(published), strict=True)
    ]
    expected = {one.id: generate(taught, one, min_new_tokens=one.min_new_tokens or None) for one in asked}
    assert len({len(answer) for answer in expected.values()}) > 2, "they are not all of one length"
    assert answers(Engine(taught), asked) == expected
    alone = Engine(taught, max_rows=1)
    assert {one.id: answers(alone, [one])[one.id] for one in asked} == expected


@pytest.mark.parametrize("ignoring", [False, True])
def test_a_sampled_answer_with_min_tokens_does_not_depend_on_the_batch(
    taught: PreTrainedModel, published: Path, ignoring: bool
) -> None:
    wishes: dict[str, Any] = {"temperature": 1.2, "top_p": 0.95, "min_new_tokens": 12, "ignore_eos": ignoring}
    asked = [
        Request(f"r{index}", prompt, 24, seed=index, top_k=index % 3 * 20, **wishes)
        for index, prompt in enumerate(known(published))
    ]
    others = [Request(f"o{index}", one.prompt, 9) for index, one in enumerate(asked)]
    alone = Engine(taught, max_rows=1)
    expected = {one.id: answers(alone, [one])[one.id] for one in asked}
    made = answers(Engine(taught), [one for pair in zip(asked, others, strict=True) for one in pair])
    assert {one.id: made[one.id] for one in asked} == expected
    for answer in expected.values():
        assert EOS not in answer[:12] and len(answer) >= 12
        assert len(answer) == 24 if ignoring else EOS not in answer[:-1]


def test_with_ignore_eos_an_answer_has_max_tokens(taught: PreTrainedModel, published: Path) -> None:
    """And otherwise what `generate` gives to a model that has no end-of-sequence token."""
    asked = [Request(str(index), prompt, 30, ignore_eos=index > 3) for index, prompt in enumerate(known(published))]
    engine = Engine(taught)
    expected = {one.id: generate(taught, one) for one in asked[:4]}
    taught.generation_config.eos_token_id = None
    expected |= {one.id: generate(taught, one) for one in asked[4:]}
    assert answers(engine, asked) == expected
    assert [len(expected[str(index)]) == 30 for index in range(8)] == [False] * 4 + [True] * 4
    assert all(EOS in expected[str(index)] for index in range(4, 8)), "it is a token like any other"
