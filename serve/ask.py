"""From a valid request to its answer: is there room, does it fit the model, and is the client still there.

It knows ASGI's messages and the answers in the making. It does not know the shape of requests and responses.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from fastapi import Request, Response
from starlette.exceptions import HTTPException
from starlette.types import Receive, Scope, Send

from serve import metrics
from serve.answer import Answer, Options, together
from serve.errors import Problem, died, overloaded
from serve.link import EngineDied, EngineRefused
from serve.serving import Serving

T = TypeVar("T")
NO_LIMIT = -1
SHORT = 4000
"""Characters that are tokenized at once, in a millisecond or two; more goes to a thread: others need not wait."""


@dataclass(frozen=True)
class Wanted:
    """What a request asks for. None stands for what the model was published with; `seconds` for the server's limit.

    `opened`: the prompt ends with the beginning of the answer's turn; `continued`: it leaves the last message's open.
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
    opened: bool = True
    continued: bool = False


@dataclass
class Asked:
    """A request that was let in: its answers in the making. `leave` gives its places back, once."""

    answers: list[Answer]
    leave: Callable[[], None]


async def admit(serving: Serving, wanted: Wanted) -> Asked:
    """Let a request in.

    Raises:
        Problem: 503 not ready, 429 no room, 400 too long for the model, 422 refused by its chat template.
    """
    arrived = time.monotonic()
    if reason := serving.unready():
        metrics.REJECTED.labels("not_ready").inc()
        raise Problem(503, f"{reason}; try again", "not_ready", retry_after=2)
    leave = _enter(serving, wanted.n)
    try:
        prompt = await _prompt(serving, wanted)
        options = _options(serving, wanted, len(prompt))
        limit = serving.settings.timeout
        seconds = limit if wanted.seconds is None else min(wanted.seconds, limit)
        answers = [
            Answer(serving.client, serving.loaded_text.decoder(options.stop), prompt, one, arrived, seconds)
            for one in _choices(options, wanted.n)
        ]
    except BaseException:
        leave()
        raise
    return Asked(answers, leave)


def _enter(serving: Serving, n: int) -> Callable[[], None]:
    """Take n places; calling the result gives them back, however often it is called."""
    admission = serving.admission
    if n > admission.most:
        message = f"n: found {n}, expected at most {admission.most}, the requests that fit in this server"
        raise Problem(422, message, "invalid_request", "n")
    if not admission.enter(n):
        raise overloaded(admission)
    taken = [n]

    def leave() -> None:
        while taken:
            admission.leave(taken.pop())

    return leave


async def _prompt(serving: Serving, wanted: Wanted) -> list[int]:
    text, context = serving.loaded_text, serving.context
    try:
        if _characters(wanted.messages) > SHORT:
            prompt = await asyncio.to_thread(text.prompt_ids, wanted.messages, wanted.opened, wanted.continued)
        else:
            prompt = text.prompt_ids(wanted.messages, wanted.opened, wanted.continued)
    except ValueError as error:  # the template's own words
        message = f"the model's chat template refuses these messages: {error}"
        raise Problem(422, message, "template", "messages") from None
    if len(prompt) >= context:
        metrics.REJECTED.labels("too_long").inc()
        # OpenAI's words and more: clients look for "maximum context length", "context_length_exceeded", "too long"
        message = (
            f"This model's maximum context length is {context} tokens, {context - 1} of which fit before an answer. "
            f"However, your messages resulted in {len(prompt)} tokens, so the prompt is too long; shorten it."
        )
        raise Problem(400, message, "context_length_exceeded", "messages")
    return prompt


def _characters(value: Any) -> int:
    """Of all texts in a JSON value."""
    if isinstance(value, str):
        return len(value)
    if isinstance(value, dict):
        value = [*value, *value.values()]
    return sum(map(_characters, value)) if isinstance(value, list) else 0


def _options(serving: Serving, wanted: Wanted, prompt: int) -> Options:
    """The request's own wishes, over what the model was published with."""
    defaults, context, most = serving.defaults, serving.context, wanted.max_new_tokens
    if most is None:
        most = context if defaults.max_new_tokens is None else defaults.max_new_tokens
    elif most == NO_LIMIT:
        most = context
    return Options(
        max_new_tokens=min(most, context - prompt),
        temperature=defaults.temperature if wanted.temperature is None else wanted.temperature,
        top_p=defaults.top_p if wanted.top_p is None else wanted.top_p,
        top_k=defaults.top_k if wanted.top_k is None else max(0, wanted.top_k),
        min_p=defaults.min_p,
        seed=wanted.seed,
        stop=[wanted.stop] if isinstance(wanted.stop, str) else wanted.stop or [],
    )


def _choices(options: Options, n: int) -> list[Options]:
    """A seed gives each of n choices an answer of its own, the same each time."""
    if options.seed is None:
        return [options] * n
    return [replace(options, seed=(options.seed + index) % 2**63) for index in range(n)]


async def whole(request: Request, asked: Asked) -> None:
    """Make the answers, unless the client leaves before."""

    async def make() -> None:
        async for _ in together(asked.answers, stream=False):
            pass

    try:
        await _unless_gone(request.receive, make())
    except (EngineDied, EngineRefused) as error:
        raise _problem(error) from None
    finally:
        asked.leave()
    _check_begun(asked)


def _check_begun(asked: Asked) -> None:
    """An answer without a token, since the time was over before the first: not an empty answer, but an error."""
    if any(answer.deadline_reached and answer.started is None for answer in asked.answers):
        metrics.REJECTED.labels("deadline").inc()
        message = "the time limit was reached before the first token; try again, or with a longer limit"
        raise Problem(503, message, "deadline_reached", retry_after=2)


def _problem(error: EngineDied | EngineRefused) -> Problem:
    if isinstance(error, EngineRefused):
        return Problem(422, f"the model cannot take this: {error}", "refused")
    return died(error)


class _Gone(HTTPException):
    """The client left; nobody reads this answer."""

    def __init__(self) -> None:
        super().__init__(499, "the client has left")


async def _unless_gone(receive: Receive, work: Awaitable[T]) -> T:
    """The result of `work`; it is cancelled as soon as the client leaves."""
    task = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(_disconnected(receive))
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise _Gone
        return task.result()
    finally:
        for one in (task, gone):
            one.cancel()
        await asyncio.gather(task, gone, return_exceptions=True)


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


class EventStream(Response):
    """Server-sent events; the events' iterator is closed whatever happens, also if the client has left before."""

    media_type = "text/event-stream"

    def __init__(self, events: AsyncGenerator[str], finish: Callable[[], None]) -> None:
        self.events, self.finish = events, finish
        self.status_code, self.background = 200, None
        self.init_headers({"cache-control": "no-cache", "x-accel-buffering": "no"})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def pump() -> None:
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            async with contextlib.aclosing(self.events) as events:
                async for event in events:
                    await send({"type": "http.response.body", "body": event.encode(), "more_body": True})
            await send({"type": "http.response.body", "body": b""})

        try:
            with contextlib.suppress(_Gone, OSError):
                await _unless_gone(receive, pump())
        finally:
            self.finish()


async def begun(request: Request, asked: Asked, events: AsyncGenerator[str]) -> Response:
    """A stream whose first event is there, so that an engine that dies before it still gives an honest 503."""
    try:
        first = await _unless_gone(request.receive, anext(events))
        _check_begun(asked)
    except (EngineDied, EngineRefused) as error:
        asked.leave()
        raise _problem(error) from None
    except BaseException:
        asked.leave()
        raise

    async def all_events() -> AsyncGenerator[str]:
        yield first
        async with contextlib.aclosing(events) as rest:
            async for event in rest:
                yield event

    return EventStream(all_events(), asked.leave)
