"""What the engine answers, and what transformers' own generate does."""

import random
from typing import Any

import torch
from transformers import PreTrainedModel

from serve.engine.engine import Engine
from serve.engine.request import Request, Token

EOS = 0


def run(engine: Engine) -> dict[str, list[Token]]:
    """Everything that the engine makes until it is idle, by request."""
    made: dict[str, list[Token]] = {}
    while not engine.idle:
        for token in engine.step():
            made.setdefault(token.id, []).append(token)
    return made


def ids(tokens: list[Token]) -> list[int]:
    return [token.token for token in tokens]


def requests(count: int, seed: int = 0) -> list[Request]:
    """Prompts and answers of many lengths, over several blocks of the cache."""
    draw = random.Random(seed)
    lengths = [1, 2, 3, 17, 63, 64, 65, 130]
    return [
        Request(f"r{index}", [draw.randrange(5, 395) for _ in range(draw.choice(lengths))], draw.choice([1, 2, 30, 90]))
        for index in range(count)
    ]


def answers(engine: Engine, asked: list[Request]) -> dict[str, list[int]]:
    """The engine's answers to requests that come all at once."""
    for one in asked:
        engine.submit(one)
    return {id: ids(tokens) for id, tokens in run(engine).items()}


def generate(model: PreTrainedModel, request: Request, **wishes: Any) -> list[int]:
    """transformers' greedy answer; the end-of-sequence token ends it."""
    prompt = torch.tensor([request.prompt])
    output = model.generate(
        prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=request.max_new_tokens, do_sample=False,
        pad_token_id=EOS, **wishes,
    )  # fmt: skip
    answer: list[int] = output[0, prompt.shape[1] :].tolist()
    return answer
