"""The answers of a chat in OpenAI's form: whole, or in chunks.

It knows the form of responses. It does not know routes, nor how answers are generated (`ask.py`).
"""

import time
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Any

from serve.http import responses
from serve.http.answer import Answer
from serve.http.ask import stream_pieces
from serve.http.errors import Problem
from serve.http.events import END, event
from serve.http.known import Judgement, judge
from serve.http.state import AppState
from serve.http.usage import timing_of, usage_of

Facts = Callable[[Answer, Judgement], dict[str, Any]]
"""What the last chunk of an answer has beside its reason to end."""


def chat_response(state: AppState, answers: list[Answer], id: str) -> responses.ChatResponse:
    """The whole chat, once its answers are complete."""
    choices = [_choice(state, index, answer) for index, answer in enumerate(answers)]
    return responses.ChatResponse(
        id=id,
        created=int(time.time()),
        model=state.name,
        choices=choices,
        usage=usage_of(answers),
        system_fingerprint=state.published.revision,
        revision=state.published.revision,
        deadline_reached=any(answer.deadline_reached for answer in answers),
        timing=timing_of(answers),
        known=choices[0].known,
        confidence=choices[0].confidence,
    )


def _choice(state: AppState, index: int, answer: Answer) -> responses.GeneratedChoice:
    """Judge an answer. Its text stays, whatever the judgement: a stream has sent it by then."""
    message, judged = responses.ChoiceMessage(content=answer.text), judge(state, answer)
    return responses.GeneratedChoice(
        index=index,
        message=message,
        finish_reason=answer.finish_reason,
        known=judged.known,
        confidence=judged.confidence,
    )


def chunk_head(state: AppState, id: str) -> dict[str, Any]:
    """What all chunks of a streamed chat have in common, for either kind of model."""
    return {
        "id": id,
        "object": "chat.completion.chunk",
        "created": int(time.time()),
        "model": state.name,
        "system_fingerprint": state.published.revision,
    }


async def chat_events(
    state: AppState,
    answers: list[Answer],
    id: str,
    with_usage: bool,
    facts: Facts = lambda answer, judged: vars(judged),
) -> AsyncGenerator[str]:
    """The chunks of a streamed chat; `facts` are added to the last one of each answer."""
    head = chunk_head(state, id)
    nothing_yet = {"usage": None} if with_usage else {}

    def chunk(index: int, delta: dict[str, str], finish_reason: str | None = None, **more: Any) -> str:
        choice = {"index": index, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
        return event({**head, "choices": [choice], **nothing_yet, **more})

    started = set()
    async with aclosing(stream_pieces(answers, stream=True)) as stream:
        async for index, piece in stream:
            yield chunk(index, {"content": piece} if index in started else {"role": "assistant", "content": piece})
            started.add(index)
    for index, answer in enumerate(answers):
        delta = {} if index in started else {"role": "assistant", "content": ""}
        yield chunk(index, delta, answer.finish_reason, **facts(answer, judge(state, answer)))
    if with_usage:
        yield event({**head, "choices": [], "usage": usage_of(answers).model_dump()})
    yield END


def chat_error(problem: Problem) -> str:
    """An error as an event of a chat."""
    return event(problem.body)
