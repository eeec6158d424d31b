"""Turns a valid request into answers: checks that there is room and that it fits the model, and generates.

It knows admission, the tokenizer and the answers. It does not know the form of requests and responses.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Any

from starlette.types import Receive

from serve.http import metrics
from serve.http.answer import Answer, Options, merge_pieces
from serve.http.disconnect import cancel_on_disconnect
from serve.http.errors import Problem, engine_problem, overload_problem
from serve.http.state import AppState
from serve.http.template import Documents
from serve.link import EngineDied, EngineRefused
from serve.repository import Decoding

NO_LIMIT = -1
SHORT = 4000
"""Characters that are tokenized directly, in a millisecond or two; more are tokenized in a thread, so that other
requests need not wait."""


@dataclass(frozen=True)
class Query:
    """What a request asks for.

    None stands for the model's published default, in `seconds` for the server's time limit. `opened`: the prompt ends
    with the beginning of the assistant's turn (add_generation_prompt). `continued`: the prompt leaves the last message
    open (continue_final_message). `documents`: the retrieved rows of a grounded generator. `arrived`: when the request
    did, by `time.monotonic()`; None: now.
    """

    messages: list[dict[str, Any]]
    max_new_tokens: int | None
    temperature: float | None
    top_p: float | None
    top_k: int | None
    seed: int | None
    stop: str | list[str] | None
    seconds: float | None
    n: int = 1
    min_tokens: int | None = None
    ignore_eos: bool = False
    opened: bool = True
    continued: bool = False
    documents: Documents = None
    arrived: float | None = None


@dataclass
class Generation:
    """An admitted request: its answers, not yet generated. `leave` gives its places back, once."""

    answers: list[Answer]
    leave: Callable[[], None]


async def start(state: AppState, query: Query) -> Generation:
    """Admit a request and make its prompt.

    The caller must pass the result to `finish`, or call its `leave`.

    Raises:
        Problem: 503 not ready; 429 no room; 400 too long for the model; 422 refused by the chat template, or min_tokens
            above the most tokens of the answer.
    """
    arrived = time.monotonic() if query.arrived is None else query.arrived
    if reason := state.unavailable_reason():
        metrics.count_rejection(metrics.Rejected.NOT_READY)
        raise Problem(503, f"{reason}; try again", "not_ready", retry_after=2)
    leave = _take_places(state, query.n)
    try:
        context = state.context  # the engine may die while the prompt is made
        prompt = await _prompt(state, query, context)
        options = replace(_options(state.decoding, query, context, len(prompt)), logprobs=state.confidence is not None)
        limit, text = state.settings.timeout, state.loaded_text
        seconds = limit if query.seconds is None else min(query.seconds, limit)
        before = prompt if query.continued else []
        least = query.min_tokens or 0
        answers = [
            Answer(state.engines, text.decoder(options.stop, least, before), prompt, one, arrived, seconds)
            for one in _choices(options, query.n)
        ]
    except BaseException:
        leave()
        raise
    return Generation(answers, leave)


def _take_places(state: AppState, n: int) -> Callable[[], None]:
    """Take n places; the returned function gives them back, once, however often it is called."""
    admission = state.admission
    if n > admission.most:
        message = f"n: found {n}, expected at most {admission.most}, the requests that fit in this server"
        raise Problem(422, message, "invalid_request", "n")
    if not admission.enter(n):
        raise overload_problem(admission)
    taken = [n]

    def leave() -> None:
        while taken:
            admission.leave(taken.pop())

    return leave


async def _prompt(state: AppState, query: Query, context: int) -> list[int]:
    text = state.loaded_text
    try:
        if _short([*query.messages, *(query.documents or [])]):
            prompt = text.prompt_ids(query.messages, query.opened, query.continued, query.documents)
        else:
            prompt = await asyncio.to_thread(
                text.prompt_ids, query.messages, query.opened, query.continued, query.documents
            )
    except ValueError as error:  # its text is the template's own
        message = f"the model's chat template refuses these messages: {error}"
        raise Problem(422, message, "template", "messages") from None
    if len(prompt) >= context:
        metrics.count_rejection(metrics.Rejected.TOO_LONG)
        # OpenAI's words and more: clients search for "maximum context length", "context_length_exceeded", "too long"
        message = (
            f"This model's maximum context length is {context} tokens, {context - 1} of which fit before an answer. "
            f"However, your messages resulted in {len(prompt)} tokens, so the prompt is too long; shorten it."
        )
        raise Problem(400, message, "context_length_exceeded", "messages")
    return prompt


def _short(messages: list[dict[str, Any]]) -> bool:
    """Whether the messages have at most `SHORT` characters in all. Stops counting as soon as they have more."""
    left = SHORT
    values: list[Any] = [*messages]
    while values and left >= 0:
        value = values.pop()
        if isinstance(value, dict):
            values += [*value, *value.values()]
        elif isinstance(value, list):
            values += value
            left -= 1
        else:
            left -= max(1, len(value if isinstance(value, str) else str(value)))
    return left >= 0


def _options(defaults: Decoding, query: Query, context: int, prompt: int) -> Options:
    """The request's options, with the model's published defaults filled in. `prompt`: its tokens."""
    most = query.max_new_tokens
    if most is None:
        most = context if defaults.max_new_tokens is None else defaults.max_new_tokens
    elif most == NO_LIMIT:
        most = context
    most = min(most, context - prompt)
    return Options(
        max_new_tokens=most,
        temperature=defaults.temperature if query.temperature is None else query.temperature,
        top_p=defaults.top_p if query.top_p is None else query.top_p,
        top_k=defaults.top_k if query.top_k is None else max(0, query.top_k),
        min_p=defaults.min_p,
        seed=query.seed,
        stop=[query.stop] if isinstance(query.stop, str) else query.stop or [],
        min_new_tokens=_min_new_tokens(query.min_tokens, defaults.min_new_tokens, most, context - prompt),
        ignore_eos=query.ignore_eos,
    )


def _min_new_tokens(requested: int | None, published: int, most: int, room: int) -> int:
    """The least tokens of the answer.

    A published number above `most` is lowered to it, as in transformers; a requested one is refused, as in vLLM.

    Raises:
        Problem: `requested` is above `most`.
    """
    if requested is None:
        return min(published, most)
    if requested > most:
        metrics.count_rejection(metrics.Rejected.INVALID)
        reason = (
            "the tokens that fit after these messages; shorten them, or ask for less"
            if most == room
            else "the most that the answer may have; send a larger max_tokens, or ask for less"
        )
        message = f"min_tokens: found {requested}, expected at most {most}, {reason}"
        raise Problem(422, message, "invalid_request", "min_tokens")
    return requested


def _choices(options: Options, n: int) -> list[Options]:
    """The options of each of n choices: with a seed they differ from each other, and repeat from request to request."""
    if options.seed is None:
        return [options] * n
    return [replace(options, seed=(options.seed + index) % 2**63) for index in range(n)]


async def finish(receive: Receive, generation: Generation) -> None:
    """Generate the answers; cancel them if the client disconnects.

    Raises:
        Problem: see `stream_pieces`.
        ClientDisconnected: the client has left.
    """

    async def make() -> None:
        async for _ in stream_pieces(generation.answers, stream=False):
            pass

    try:
        await cancel_on_disconnect(receive, make())
    finally:
        generation.leave()


async def stream_pieces(answers: list[Answer], stream: bool) -> AsyncGenerator[tuple[int, str]]:
    """Yield the pieces of the answers as they arrive, each with the index of its answer.

    Raises:
        Problem: 503 the engine died, or the time limit was reached before an answer's first token; 422 the engine
            refuses the request.
    """
    try:
        async with aclosing(merge_pieces(answers, stream)) as made:
            async for piece in made:
                yield piece
    except EngineRefused as error:
        raise Problem(422, f"the model cannot compute this: {error}", "refused") from None
    except EngineDied as error:
        raise engine_problem(error) from None
    if any(answer.deadline_reached and answer.started is None for answer in answers):
        metrics.count_rejection(metrics.Rejected.DEADLINE)
        message = "the time limit was reached before the first token; try again, or with a longer limit"
        raise Problem(503, message, "deadline_reached", retry_after=2)
