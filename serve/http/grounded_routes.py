"""The HTTP routes of a grounded generator: /predict and /v1/chat/completions, and those that every model has.

It knows the form of requests and responses. It does not know how rows are found (`ground.py`) and answers generated.
"""

import uuid
from collections.abc import AsyncGenerator
from contextlib import aclosing
from functools import partial
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.routing import APIRoute
from pydantic import BaseModel

from serve.http import responses, routes, schema
from serve.http.answer import Answer
from serve.http.ask import finish, stream_pieces
from serve.http.chat import chat_error, chat_events, chat_response
from serve.http.errors import ERRORS, stream_of
from serve.http.events import named_event
from serve.http.ground import Found, begin
from serve.http.grounded_responses import GroundedChatResponse, GroundedPredictResponse, Grounds
from serve.http.known import Judgement
from serve.http.retriever_responses import Alternative
from serve.http.retriever_schema import AskedChatRequest
from serve.http.routes import Deadline, check_model
from serve.http.state import AppState
from serve.http.stream import start_stream

router = APIRouter()
BODIES: dict[str, type[BaseModel]] = {"/predict": schema.PredictRequest, "/v1/chat/completions": AskedChatRequest}
"""The body of each route that needs the engine."""


@router.post(
    "/predict",
    response_model=GroundedPredictResponse,
    responses={200: stream_of("delta", "done", "error"), **ERRORS},
    summary="Answer a question from the published rows",
)
async def predict(
    request: Request, body: schema.PredictRequest, x_request_timeout: Deadline = None
) -> Response | GroundedPredictResponse:
    """One question, one answer, and its rows; with `stream` as server-sent events: `delta`, then `done`."""
    state: AppState = request.app.state.kickoff
    messages = [{"role": "user", "content": body.question}]
    query = routes.query_of(messages, body, body.max_new_tokens, x_request_timeout)
    found, generation = await begin(state, request.receive, body.question, "question", query)
    request.state.answers = generation.answers  # for the access log
    (answer,) = generation.answers
    if body.stream:
        events = _predict_events(state, answer, found)
        return await start_stream(request.receive, events, routes.predict_error, generation.leave)
    await finish(request.receive, generation)
    return _predicted(state, answer, found)


async def _predict_events(state: AppState, answer: Answer, found: Found) -> AsyncGenerator[str]:
    async with aclosing(stream_pieces([answer], stream=True)) as stream:
        async for _, piece in stream:
            yield named_event("delta", {"text": piece})
    yield named_event("done", _predicted(state, answer, found).model_dump())


def _predicted(state: AppState, answer: Answer, found: Found) -> GroundedPredictResponse:
    said = routes.predicted(state, answer)
    grounds = _grounds(answer, Judgement(said.confidence, said.known), found)
    given = {"answer": said.answer if grounds["known"] else None}
    return GroundedPredictResponse(**{**said.model_dump(), **grounds, **given})


def _grounds(answer: Answer, judged: Judgement, found: Found) -> dict[str, Any]:
    known = judged.known and found.is_known(answer)
    return Grounds(known=known, confidence=judged.confidence, sources=_sources(found)).model_dump()


def _sources(found: Found) -> list[Alternative]:
    return [Alternative(**hit) for hit in found.hits]


@router.post(
    "/v1/chat/completions",
    response_model=GroundedChatResponse,
    responses={200: stream_of(), 404: {"model": responses.Error, "description": "Another model is served."}, **ERRORS},
    summary="Answer the last question of a conversation from the published rows, as OpenAI's clients ask for it",
)
async def chat(
    request: Request, body: AskedChatRequest, x_request_timeout: Deadline = None
) -> Response | GroundedChatResponse:
    """`stream` gives chat.completion.chunk events and [DONE]; the last chunk of an answer names its rows."""
    state: AppState = request.app.state.kickoff
    check_model(state, body.model)
    query = routes.chat_query(body, x_request_timeout)
    found, generation = await begin(state, request.receive, body.question, "messages", query)
    request.state.answers = generation.answers
    id = f"chatcmpl-{uuid.uuid4().hex}"
    if body.stream:
        usage = body.stream_options is not None and bool(body.stream_options.include_usage)
        events = chat_events(state, generation.answers, id, usage, partial(_grounds, found=found))
        return await start_stream(request.receive, events, chat_error, generation.leave)
    await finish(request.receive, generation)
    said = chat_response(state, generation.answers, id).model_dump()
    for choice, answer in zip(said["choices"], generation.answers, strict=True):
        choice["known"] = choice["known"] and found.is_known(answer)
    return GroundedChatResponse(**{**said, "known": said["choices"][0]["known"]}, sources=_sources(found))


for route in routes.router.routes:
    if isinstance(route, APIRoute) and route.path not in BODIES:
        router.routes.append(route)
