"""The HTTP routes of a retriever: /predict, /v1/chat/completions and /v1/embeddings, and those that every model has.

It knows the form of requests and responses. It does not know how answers are found (`retrieve.py`).
"""

import array
import base64
import sys
import time
import uuid
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Any, Literal

from fastapi import APIRouter, Request, Response
from fastapi.routing import APIRoute

from serve.http import metrics, responses, retriever_responses, routes
from serve.http.ask import NO_LIMIT
from serve.http.chat import chunk_head
from serve.http.errors import ERRORS, Problem, stream_of
from serve.http.events import END, event
from serve.http.retrieve import Query, Retrieved, retrieve
from serve.http.retriever_schema import BODIES, EmbeddingsRequest, RetrieverChatRequest, RetrieverPredictRequest
from serve.http.routes import Deadline, check_model
from serve.http.state import AppState
from serve.http.stream import start_stream

router = APIRouter()
ANOTHER: dict[int | str, dict[str, Any]] = {404: {"model": responses.Error, "description": "Another model is served."}}
ONE_ANSWER = 1


@router.post(
    "/predict",
    response_model=retriever_responses.RetrieverPredictResponse,
    responses=ERRORS,
    summary="Find the answer to a question",
)
async def predict(
    request: Request, body: RetrieverPredictRequest, x_request_timeout: Deadline = None
) -> retriever_responses.RetrieverPredictResponse:
    """The published answer that is nearest to the question, and the next best ones."""
    state: AppState = request.app.state.kickoff
    query = Query([body.question], "question", top_k=body.top_k, seconds=x_request_timeout)
    retrieved = await retrieve(state, request.receive, query)
    hits = retrieved.results[0]["hits"]
    best, others = hits[0], hits[1:]
    known = _is_known(state, best)
    retrieved.spend(state.loaded_tokens.count(best["answer"]) if known else 0)
    request.state.answers = [retrieved]  # for the access log
    nothing = {**best, "answer": None, "source": None, "question": None}
    return retriever_responses.RetrieverPredictResponse(
        **(best if known else nothing),
        known=known,
        alternatives=[retriever_responses.Alternative(**hit) for hit in (others if known else hits)],
        model=state.name,
        revision=state.published.revision,
        usage=_usage(retrieved),
        timing=_timing(retrieved),
    )


def _is_known(state: AppState, best: dict[str, Any]) -> bool:
    """Whether the best answer counts as known; those that do not are counted."""
    needed = state.known_from
    known = bool(best["confidence"] >= needed.confidence or best["score"] >= needed.certain_score)
    metrics.UNKNOWN.inc(not known)
    return known


def _usage(retrieved: Retrieved) -> retriever_responses.TextUsage:
    prompt, completion = retrieved.tokens_in, retrieved.tokens
    return retriever_responses.TextUsage(
        prompt_tokens=prompt, completion_tokens=completion, total_tokens=prompt + completion
    )


def _timing(retrieved: Retrieved) -> retriever_responses.SearchTiming:
    queued, total = (round((at - retrieved.arrived) * 1000, 2) for at in (retrieved.started, retrieved.ended))
    return retriever_responses.SearchTiming(queued_ms=max(0.0, queued), total_ms=total)


@dataclass(frozen=True)
class _Said:
    """What a chat answers: the text as far as it may go, and where it comes from."""

    text: str
    finish_reason: Literal["stop", "length"]
    facts: dict[str, Any]


@router.post(
    "/v1/chat/completions",
    response_model=retriever_responses.RetrieverChatResponse,
    responses={200: stream_of(), **ANOTHER, **ERRORS},
    summary="Answer the last question of a conversation, as OpenAI's clients ask for it",
)
async def chat(
    request: Request, body: RetrieverChatRequest, x_request_timeout: Deadline = None
) -> Response | retriever_responses.RetrieverChatResponse:
    """`stream` gives chat.completion.chunk events, the text in one of them, and [DONE]."""
    state: AppState = request.app.state.kickoff
    check_model(state, body.model)
    query = Query([body.question], "messages", top_k=ONE_ANSWER, seconds=x_request_timeout)
    retrieved = await retrieve(state, request.receive, query)
    said = _say(state, body, retrieved)
    retrieved.spend(state.loaded_tokens.count(said.text))
    request.state.answers = [retrieved]
    id = f"chatcmpl-{uuid.uuid4().hex}"
    if body.stream:
        usage = body.stream_options is not None and bool(body.stream_options.include_usage)
        events = _chat_events(state, said, retrieved, id, usage)
        return await start_stream(request.receive, events, _chat_error, lambda: None)
    message = responses.ChoiceMessage(content=said.text)
    return retriever_responses.RetrieverChatResponse(
        id=id,
        created=int(time.time()),
        model=state.name,
        choices=[responses.Choice(index=0, message=message, finish_reason=said.finish_reason)],
        usage=_usage(retrieved),
        system_fingerprint=state.published.revision,
        revision=state.published.revision,
        timing=_timing(retrieved),
        **said.facts,
    )


def _say(state: AppState, body: RetrieverChatRequest, retrieved: Retrieved) -> _Said:
    """The answer's text, cut where the request says so: after its tokens, and before the first stop text in them."""
    best = retrieved.results[0]["hits"][0]
    known = _is_known(state, best)
    whole = best["answer"] if known else state.known_from.unknown_answer
    most = body.max_tokens if body.max_completion_tokens is None else body.max_completion_tokens
    text = whole if most in (None, NO_LIMIT) else state.loaded_tokens.cut(whole, most)
    finish: Literal["stop", "length"] = "stop" if text == whole else "length"
    stops = [body.stop] if isinstance(body.stop, str) else body.stop or []
    ends = [(text.find(stop) + len(stop), text.find(stop)) for stop in stops if stop in text]
    if ends:
        text, finish = text[: min(ends)[1]], "stop"
    source = best["source"] if known else None
    facts = {"known": known, "score": best["score"], "confidence": best["confidence"], "source": source}
    return _Said(text, finish, facts)


async def _chat_events(
    state: AppState, said: _Said, retrieved: Retrieved, id: str, with_usage: bool
) -> AsyncGenerator[str]:
    head = chunk_head(state, id)
    nothing_yet = {"usage": None} if with_usage else {}

    def chunk(delta: dict[str, str], finish_reason: str | None = None) -> dict[str, Any]:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
        return {**head, "choices": [choice], **nothing_yet}

    yield event(chunk({"role": "assistant", "content": said.text}))
    yield event({**chunk({}, said.finish_reason), **said.facts})
    if with_usage:
        yield event({**head, "choices": [], "usage": _usage(retrieved).model_dump()})
    yield END


def _chat_error(problem: Problem) -> str:
    return event(problem.body)


@router.post(
    routes.EMBEDDINGS,
    response_model=retriever_responses.EmbeddingsResponse,
    responses={**ANOTHER, **ERRORS},
    summary="Encode texts, as OpenAI's clients ask for it",
)
async def embeddings(
    request: Request, body: EmbeddingsRequest, x_request_timeout: Deadline = None
) -> retriever_responses.EmbeddingsResponse:
    """The vector of each text, in the order of the texts."""
    state: AppState = request.app.state.kickoff
    check_model(state, body.model)
    query = Query(body.texts, "input", body.input_type or "query", seconds=x_request_timeout)
    retrieved = await retrieve(state, request.receive, query)
    request.state.answers = [retrieved]
    vectors = [result["vector"] for result in retrieved.results]
    _check_width(vectors[0], body.dimensions)
    data = [
        retriever_responses.Embedding(
            index=index, embedding=vector if body.encoding_format == "base64" else _numbers(vector).tolist()
        )
        for index, vector in enumerate(vectors)
    ]
    return retriever_responses.EmbeddingsResponse(
        data=data,
        model=state.name,
        usage=retriever_responses.EmbeddingsUsage(prompt_tokens=retrieved.tokens_in, total_tokens=retrieved.tokens_in),
        revision=state.published.revision,
    )


def _numbers(vector: str) -> "array.array[float]":
    numbers = array.array("f", base64.b64decode(vector))
    if sys.byteorder == "big":
        numbers.byteswap()
    return numbers


def _check_width(vector: str, wanted: int | None) -> None:
    width = len(_numbers(vector))
    if wanted not in (None, width):
        message = f"dimensions: found {wanted}, expected {width}, the width of this model's vectors; leave it out"
        raise Problem(422, message, "invalid_request", "dimensions")


for route in routes.router.routes:
    if isinstance(route, APIRoute) and route.path not in BODIES:
        router.routes.append(route)
