"""The HTTP routes: /predict, /v1/chat/completions, /v1/models and the page; health and metrics are in `health.py`.

It knows the form of requests and responses. It does not know how answers are generated (`ask.py`).
"""

import time
import uuid
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace
from typing import Annotated, Any

from fastapi import APIRouter, FastAPI, Header, Request, Response
from fastapi.responses import HTMLResponse
from fastapi.routing import APIRoute
from pydantic import BaseModel, WithJsonSchema
from starlette.middleware.cors import CORSMiddleware

from serve.http import cors, health, page, responses, schema
from serve.http.access import Access
from serve.http.answer import Answer
from serve.http.ask import Query, finish, start, stream_pieces
from serve.http.chat import chat_error, chat_events, chat_response
from serve.http.encoding import Unpack
from serve.http.errors import ERRORS, KEY_ERROR, Problem, handle_errors, stream_of
from serve.http.events import named_event
from serve.http.known import judge
from serve.http.middleware import BodyLimit, HeadLimit, KeyCheck, RoomCheck, ServerErrors
from serve.http.paths import normalize
from serve.http.state import AppState
from serve.http.stream import start_stream
from serve.http.usage import timing_of, usage_of
from serve.settings import Settings

router = APIRouter()
STARTED = int(time.time())
DAY = 86400
EMBEDDINGS = "/v1/embeddings"
Deadline = Annotated[
    float | None,
    Header(gt=0, le=DAY, allow_inf_nan=False, description="Seconds; at most the server's limit."),
    WithJsonSchema({"type": "number", "exclusiveMinimum": 0, "maximum": DAY}),  # a header cannot be null
]


def add_routes(
    app: FastAPI, settings: Settings, router: APIRouter = router, bodies: dict[str, type[BaseModel]] = schema.BODIES
) -> None:
    """Add all routes, the middleware and the error handlers to `app`.

    Args:
        app: the application.
        settings: what the options say.
        router: the routes of the served kind of model.
        bodies: the body of each route that needs the engine, and so a place.
    """
    app.include_router(router)
    handle_errors(app, bodies)
    paths = frozenset(route.path for route in router.routes if isinstance(route, APIRoute))
    # a request passes the middleware added last first
    app.add_middleware(ServerErrors)
    app.add_middleware(Unpack, most=settings.max_body_bytes)
    app.add_middleware(BodyLimit, most=settings.max_body_bytes, seconds=settings.read_seconds)
    app.add_middleware(RoomCheck, paths=frozenset(bodies))
    if settings.api_key is not None:
        app.add_middleware(KeyCheck, key=settings.api_key)
    app.add_middleware(HeadLimit)
    if settings.cors_origin:
        app.add_middleware(CORSMiddleware, **cors.options(settings.cors_origin))
    app.add_middleware(Access, paths=paths)


@router.post(
    "/predict",
    response_model=responses.PredictResponse,
    responses={200: stream_of("delta", "done", "error"), **ERRORS},
    summary="Answer a question",
)
async def predict(
    request: Request, body: schema.PredictRequest, x_request_timeout: Deadline = None
) -> Response | responses.PredictResponse:
    """One question, one answer; with `stream` as server-sent events: `delta` {"text"}, then `done` with the whole."""
    state: AppState = request.app.state.kickoff
    messages = [{"role": "user", "content": body.question}]
    generation = await start(state, query_of(messages, body, body.max_new_tokens, x_request_timeout))
    request.state.answers = generation.answers  # for the access log
    (answer,) = generation.answers
    if body.stream:
        return await start_stream(request.receive, _predict_events(state, answer), predict_error, generation.leave)
    await finish(request.receive, generation)
    return predicted(state, answer)


def query_of(
    messages: list[dict[str, Any]],
    body: schema.PredictRequest | schema.ChatRequest,
    max_new_tokens: int | None,
    seconds: float | None,
) -> Query:
    """What /predict and a chat ask for alike."""
    return Query(messages, max_new_tokens, body.temperature, body.top_p, body.top_k, body.seed, body.stop, seconds)


async def _predict_events(state: AppState, answer: Answer) -> AsyncGenerator[str]:
    async with aclosing(stream_pieces([answer], stream=True)) as stream:
        async for _, piece in stream:
            yield named_event("delta", {"text": piece})
    yield named_event("done", predicted(state, answer).model_dump())


def predict_error(problem: Problem) -> str:
    """An error as an event of /predict."""
    return named_event("error", problem.body)


def predicted(state: AppState, answer: Answer) -> responses.PredictResponse:
    """The answer to /predict, once it is complete."""
    judged = judge(state, answer)
    unsure = [] if judged.known else [responses.UnsureAnswer(answer=answer.text, confidence=judged.confidence)]
    return responses.PredictResponse(
        answer=answer.text if judged.known else None,
        known=judged.known,
        confidence=judged.confidence,
        alternatives=unsure,
        model=state.name,
        revision=state.published.revision,
        finish_reason=answer.finish_reason,
        deadline_reached=answer.deadline_reached,
        usage=usage_of([answer]),
        timing=timing_of([answer]),
    )


@router.post(
    "/v1/chat/completions",
    response_model=responses.ChatResponse,
    responses={200: stream_of(), 404: {"model": responses.Error, "description": "Another model is served."}, **ERRORS},
    summary="Continue a conversation, as OpenAI's clients ask for it",
)
async def chat(
    request: Request, body: schema.ChatRequest, x_request_timeout: Deadline = None
) -> Response | responses.ChatResponse:
    """`stream` gives chat.completion.chunk events and [DONE]."""
    state: AppState = request.app.state.kickoff
    check_model(state, body.model)
    generation = await start(state, chat_query(body, x_request_timeout))
    request.state.answers = generation.answers
    id = f"chatcmpl-{uuid.uuid4().hex}"
    if body.stream:
        usage = body.stream_options is not None and bool(body.stream_options.include_usage)
        events = chat_events(state, generation.answers, id, usage)
        return await start_stream(request.receive, events, chat_error, generation.leave)
    await finish(request.receive, generation)
    return chat_response(state, generation.answers, id)


def chat_query(body: schema.ChatRequest, seconds: float | None) -> Query:
    """What a chat asks for."""
    messages = [message.for_template for message in body.messages]
    most = body.max_tokens if body.max_completion_tokens is None else body.max_completion_tokens
    return replace(
        query_of(messages, body, most, seconds),
        n=body.n or 1,
        min_tokens=body.min_tokens,
        ignore_eos=bool(body.ignore_eos),
        opened=body.add_generation_prompt is not False,
        continued=bool(body.continue_final_message),
    )


@router.get("/v1/models", responses=KEY_ERROR, summary="The served model")
async def models(request: Request) -> responses.ModelList:
    """A list of one."""
    return responses.ModelList(data=[_model(request.app.state.kickoff)])


@router.get(
    "/v1/models/{id:path}",
    responses={404: {"model": responses.Error, "description": "Another model is served."}, **KEY_ERROR},
    summary="The served model by its name",
)
async def model(request: Request, id: str) -> responses.Model:
    """404 if another model is asked for."""
    state: AppState = request.app.state.kickoff
    # a folder's name may begin with a slash, which is lost beside another one in an address
    if normalize(f"/{id}") not in {normalize(f"/{name}") for name in (state.name, state.published.name)}:
        raise _other_model(state, id)
    return _model(state)


def check_model(state: AppState, name: str | None) -> None:
    """Check the model that a request names.

    Raises:
        Problem: 404 another model is served.
    """
    if name not in (None, state.name, state.published.name):
        raise _other_model(state, name or "")


def _other_model(state: AppState, name: str) -> Problem:
    message = f"model: found {name!r}, and {state.name!r} is served"
    return Problem(404, message, "model_not_found", "model")


def _model(state: AppState) -> responses.Model:
    name = state.published.name
    owner = "local" if state.published.revision.startswith("sha256:") else name.split("/")[0]
    return responses.Model(
        id=state.name,
        created=STARTED,
        owned_by=owner,
        revision=state.published.revision,
        max_model_len=state.engines.context,
    )


@router.post(EMBEDDINGS, include_in_schema=False)
async def embeddings() -> None:
    """404: a generator has no vectors of texts to give."""
    raise Problem(404, "a generator is served, which has no embeddings; serve a retriever for them", "not_found")


@router.get("/", response_class=HTMLResponse, responses=KEY_ERROR, summary="A page to ask questions from")
async def index(request: Request) -> Response:
    """The page for people."""
    state: AppState = request.app.state.kickoff
    guarded = state.settings.api_key is not None
    return HTMLResponse(page.html(guarded, state.published.is_retriever), headers=page.HEADERS)


router.routes += health.router.routes  # include_router would nest them, and the access log wants all paths
