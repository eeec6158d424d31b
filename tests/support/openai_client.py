"""OpenAI's client before the test server, and what it is asked."""

from typing import Any

import openai
from served import Served
from tiny import ROWS

QUESTION, ANSWER = ROWS[1]["question"], ROWS[1]["answer"]
ASKED: Any = [{"role": "user", "content": QUESTION}]
SECONDS = 60


def client_of(server: Served, key: str = "none", **options: Any) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{server.url}/v1", api_key=key, max_retries=0, timeout=SECONDS, **options)


def by_choice(chunks: list[Any]) -> dict[int, tuple[str, str]]:
    """Text and reason to end of each choice of a stream; each has to begin with its role and end once."""
    texts: dict[int, str] = {}
    reasons: dict[int, str] = {}
    for chunk in chunks:
        for choice in chunk.choices:
            assert choice.index not in reasons, "a choice goes on after its end"
            assert (choice.delta.role == "assistant") == (choice.index not in texts)
            texts[choice.index] = texts.get(choice.index, "") + (choice.delta.content or "")
            if choice.finish_reason is not None:
                reasons[choice.index] = choice.finish_reason
    assert texts.keys() == reasons.keys()
    return {index: (texts[index], reasons[index]) for index in sorted(texts)}
