"""Turns a valid request to a retriever into its result: checks room and lengths, and asks an engine.

It knows admission, the token counts and the link to the engines. It does not know the form of requests and responses.
"""

import asyncio
import time
import uuid
from dataclasses import dataclass
from typing import Any

from starlette.types import Receive

from serve.http import metrics
from serve.http.ask import SHORT
from serve.http.disconnect import cancel_on_disconnect
from serve.http.errors import Problem, engine_problem, overload_problem
from serve.http.state import AppState
from serve.link import EngineDied, EngineRefused, TokenEvent
from serve.retriever.request import Side


@dataclass(frozen=True)
class Query:
    """Texts to encode.

    Attributes:
        texts: one question, or the texts to embed.
        field: of the request that has them, for errors.
        side: which prompt they get.
        top_k: distinct answers to find for each; 0: their vectors.
        seconds: longest time; None is the server's time limit.
        whole: the request is answered with the result; False: it goes on, and its time is measured at its end.
    """

    texts: list[str]
    field: str
    side: Side = "query"
    top_k: int = 0
    seconds: float | None = None
    whole: bool = True


@dataclass
class Retrieved:
    """An engine's result for each text, and what it took. Times are by `time.monotonic()`; tokens for the log."""

    results: list[dict[str, Any]]
    tokens_in: int
    arrived: float
    started: float
    ended: float
    tokens: int = 0

    def spend(self, tokens: int) -> None:
        """Count the tokens of the answer's text."""
        self.tokens = tokens
        metrics.TOKENS.labels("out").inc(tokens)


async def retrieve(state: AppState, receive: Receive, query: Query) -> Retrieved:
    """Encode the texts, and search them if the query says so.

    Raises:
        Problem: 503 not ready, the engine died, or the time limit was reached; 429 no room; 422 a text is too long.
        ClientDisconnected: the client has disconnected.
    """
    arrived = time.monotonic()
    if reason := state.unavailable_reason():
        metrics.count_rejection(metrics.Rejected.NOT_READY)
        raise Problem(503, f"{reason}; try again", "not_ready", retry_after=2)
    if not state.admission.enter():
        raise overload_problem(state.admission)
    try:
        context = state.context  # the engine may die while the tokens are counted
        lengths = await _lengths(state, query)
        _check_lengths(query, lengths, context)
        metrics.TOKENS.labels("in").inc(sum(lengths))
        event = await cancel_on_disconnect(receive, _compute(state, query, lengths, arrived))
    finally:
        state.admission.leave()
    if query.whole:
        metrics.DURATION.observe(event.at - arrived)
    return Retrieved(event.result, sum(lengths), arrived, event.started, event.at)


async def _lengths(state: AppState, query: Query) -> list[int]:
    if sum(map(len, query.texts)) <= SHORT:
        return state.loaded_tokens.lengths(query.texts, query.side)
    return await asyncio.to_thread(state.loaded_tokens.lengths, query.texts, query.side)


def _check_lengths(query: Query, lengths: list[int], context: int) -> None:
    at = next((at for at, length in enumerate(lengths) if length > context), None)
    if at is None:
        return
    metrics.count_rejection(metrics.Rejected.TOO_LONG)
    field = f"{query.field}.{at}" if len(lengths) > 1 else query.field
    message = (
        f"{field}: found {lengths[at]} tokens, expected at most {context}, the maximum context length of this model's "
        "encoder; shorten it"
    )
    raise Problem(422, message, "context_length_exceeded", field)


async def _compute(state: AppState, query: Query, lengths: list[int], arrived: float) -> TokenEvent:
    limit = state.settings.timeout
    seconds = limit if query.seconds is None else min(query.seconds, limit)
    deadline = asyncio.get_running_loop().time() + seconds - (time.monotonic() - arrived)
    request = {"texts": query.texts, "lengths": lengths, "side": query.side, "top_k": query.top_k}
    try:
        event = await state.engines.compute(uuid.uuid4().hex, request, deadline)
    except EngineRefused as error:
        raise Problem(422, f"the model cannot take this: {error}", "refused") from None
    except EngineDied as error:
        raise engine_problem(error) from None
    except asyncio.CancelledError:
        metrics.CANCELLED.inc()
        raise
    if event.finish == "deadline":
        metrics.count_rejection(metrics.Rejected.DEADLINE)
        message = "the time limit was reached before the answer; try again, or with a longer limit"
        raise Problem(503, message, "deadline_reached", retry_after=2)
    return event
