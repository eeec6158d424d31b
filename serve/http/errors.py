"""Turns every failure into a response with one clear error in OpenAI's form; documents each of them for /docs.

It knows FastAPI's errors. It does not know when our own are raised.
"""

from difflib import get_close_matches
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from starlette.exceptions import HTTPException

from serve.http import metrics, responses, schema
from serve.http.admission import Admission
from serve.http.conversation import TextPart
from serve.link import EngineDied, EngineFailed

MAX_MISTAKES = 20
"""Mistakes of a request that the response lists."""
MAX_FIELD_PATH = 200
"""Characters of a field's path in a message; the client chooses the names in it."""
MIN_LIKENESS = 0.78
"""Similarity, from 0 to 1, above which an unknown name may be a misspelt known one."""
INNER: dict[str | int, type[BaseModel]] = {
    "stream_options": schema.StreamOptions,
    "response_format": schema.ResponseFormat,
    "content": TextPart,
}
"""Objects in a body that accept only the fields of their model."""


def error_body(message: str, type: str, code: str, param: str | None = None) -> dict[str, object]:
    """Make a response body in OpenAI's form of an error, which every route uses."""
    return {"error": {"message": message, "type": type, "param": param, "code": code}}


class Problem(Exception):
    """A failure to respond with. `retry_after` is in seconds."""

    def __init__(
        self, status: int, message: str, code: str, param: str | None = None, retry_after: int | None = None
    ) -> None:
        super().__init__(message)
        kind = {429: "rate_limit_error", 503: "server_error"}.get(status, "invalid_request_error")
        self.status, self.body = status, error_body(message, kind, code, param)
        self.headers = {} if retry_after is None else {"retry-after": str(retry_after)}


def overload_problem(admission: Admission) -> Problem:
    """Make the 429 of a server without a free place, and count it."""
    metrics.count_rejection(metrics.Rejected.OVERLOAD)
    seconds = admission.retry_after()
    message = f"{admission.inside} requests are in progress, of at most {admission.most}; try again in {seconds} s"
    return Problem(429, message, "overloaded", retry_after=seconds)


def handle_errors(app: FastAPI, bodies: dict[str, type[BaseModel]] = schema.BODIES) -> None:
    """Make `app` respond to all errors in this form. `bodies`: of each path, for the suggestion of a field's name."""
    app.state.bodies = bodies
    app.add_exception_handler(Problem, _problem)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http)


async def _problem(_: Request, problem: Exception) -> Response:
    assert isinstance(problem, Problem)  # noqa: S101 - starlette's type of a handler
    return JSONResponse(problem.body, problem.status, problem.headers)


async def _http(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101
    code = {404: "not_found", 405: "method_not_allowed", 400: "invalid_body"}.get(error.status_code, "error")
    reason = f": {error.__cause__}" if error.__cause__ else ""  # why FastAPI cannot parse the body
    body = error_body(f"{error.detail}{reason}"[:2000], "invalid_request_error", code)
    return JSONResponse(body, error.status_code, error.headers)


async def _invalid(request: Request, error: Exception) -> Response:
    """Respond 422 with the body's first mistakes: where, what was found, what was expected."""
    assert isinstance(error, RequestValidationError)  # noqa: S101
    metrics.count_rejection(metrics.Rejected.INVALID)
    mistakes = error.errors()[:MAX_MISTAKES]
    parts = [_field_path(one) for one in mistakes]
    messages = [
        f"{part}: {_reason(one)}{_suggestion(request, one)}" if part else _reason(one)
        for part, one in zip(parts, mistakes, strict=True)
    ]
    if mistakes[0]["type"] in ("model_attributes_type", "dict_type") or mistakes[0]["loc"] == ("body",):
        messages.append("send a JSON object with the header 'Content-Type: application/json'")
    message = "; ".join(dict.fromkeys(messages))[:2000]
    safe = message.encode(errors="backslashreplace").decode()
    return JSONResponse(error_body(safe, "invalid_request_error", "invalid_request", parts[0] or None), 422)


def _field_path(error: dict[str, Any]) -> str:
    """The path of the field, as in "messages.0.content", without pydantic's names for alternative types."""
    if error["type"] == "json_invalid":
        return ""
    parts = [str(part) for part in error["loc"][1:]]
    chosen = parts[-1:] if error["type"] == "extra_forbidden" else []  # a name that the client chose
    path = ".".join([*(part for part in parts[: len(parts) - len(chosen)] if "[" not in part), *chosen])
    return path if len(path) <= MAX_FIELD_PATH else f"{path[:MAX_FIELD_PATH]}..."


def _suggestion(request: Request, error: dict[str, Any]) -> str:
    """Suggest the known field that an unknown one may be a misspelling of."""
    *path, name = error["loc"]
    if error["type"] != "extra_forbidden" or len(name) > MAX_FIELD_PATH:
        return ""
    known = {_simplify(field): field for field in _fields(request, path)}
    near = get_close_matches(_simplify(name), known, n=1, cutoff=MIN_LIKENESS)
    return f"; did you mean {known[near[0]]}?" if near else ""


def _simplify(name: str) -> str:
    """Remove what distinguishes topP and top-p from top_p."""
    return name.lower().replace("_", "").replace("-", "")


def _fields(request: Request, path: list[str | int]) -> list[str]:
    """The field names of the object at `path` in the body."""
    for part in reversed(path):
        if part in INNER:
            return list(INNER[part].model_fields)
    body = request.app.state.bodies.get(request.url.path, schema.ChatRequest)
    return list(body.model_fields)


def _reason(error: dict[str, Any]) -> str:
    if error["type"] == "json_invalid":
        return f"the body is not JSON: {error['ctx']['error']} at character {error['loc'][1]}"
    return str(error["msg"]).removeprefix("Value error, ")


ERRORS: dict[int | str, dict[str, Any]] = {
    400: {
        "model": responses.Error,
        "description": "The body cannot be read, or the question is too long for the model.",
    },
    401: {"model": responses.Error, "description": "The key is missing or wrong."},
    408: {"model": responses.Error, "description": "The request did not arrive in time."},
    413: {"model": responses.Error, "description": "The body is over the limit."},
    415: {"model": responses.Error, "description": "The body is compressed, and not with gzip."},
    422: {"model": responses.Error, "description": "The request is not valid."},
    431: {"model": responses.Error, "description": "The first line and the headers are over the limit."},
    429: {"model": responses.Error, "description": "Too many requests; Retry-After says when to try again."},
    503: {"model": responses.Error, "description": "Loading, stopping, or the engine died."},
}
# by reference: FastAPI would announce a model as HTML or plain text on the routes that answer so
KEY_ERROR: dict[int | str, dict[str, Any]] = {
    401: {
        "description": ERRORS[401]["description"],
        "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}},
    }
}


def stream_of(*names: str) -> dict[str, Any]:
    """Describe a stream of events as OpenAPI 3.2 and FastAPI do; data is JSON.

    Args:
        names: the names of its events; empty if they have none.
    """
    properties: dict[str, Any] = {"data": {"type": "string"}}
    if names:
        properties["event"] = {"enum": list(names)}
    item = {"type": "object", "properties": properties, "required": list(properties)}
    return {"content": {"text/event-stream": {"itemSchema": item}}}


def engine_problem(error: EngineDied) -> Problem:
    """Make the 503 of an engine that died, or failed with this request only.

    A stream that has begun sends the body as an event.
    """
    if isinstance(error, EngineFailed):
        return Problem(503, f"the engine could not answer: {error}", "engine_failed", retry_after=1)
    return Problem(503, "the engine died while it answered; try again", "engine_died", retry_after=5)
