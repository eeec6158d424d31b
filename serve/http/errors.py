"""Every failure as one clear error in OpenAI's form, with its status; and what /docs says of each.

It knows FastAPI's errors. It does not know when one of ours is raised.
"""

from difflib import get_close_matches
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from starlette.exceptions import HTTPException

from serve.http import metrics, schema
from serve.http.admission import Admission
from serve.http.conversation import TextPart
from serve.link import EngineDied, EngineFailed

MAX_MISTAKES = 20
"""Mistakes of a request that are told."""
MAX_FIELD_PATH = 200
"""Characters of a place in a body, whose names the client chooses."""
MIN_LIKENESS = 0.78
"""How alike two names are, from 0 to 1, of which one may stand for the other."""
INNER: dict[str | int, type[BaseModel]] = {
    "stream_options": schema.StreamOptions,
    "response_format": schema.ResponseFormat,
    "content": TextPart,
}
"""Objects in a body that take only some fields."""


def error_body(message: str, type: str, code: str, param: str | None = None) -> dict[str, object]:
    """An error in OpenAI's form, which every route answers with."""
    return {"error": {"message": message, "type": type, "param": param, "code": code}}


class Problem(Exception):
    """An answer that is an error."""

    def __init__(
        self, status: int, message: str, code: str, param: str | None = None, retry_after: int | None = None
    ) -> None:
        super().__init__(message)
        kind = {429: "rate_limit_error", 503: "server_error"}.get(status, "invalid_request_error")
        self.status, self.body = status, error_body(message, kind, code, param)
        self.headers = {} if retry_after is None else {"retry-after": str(retry_after)}


def overload_problem(admission: Admission) -> Problem:
    """No room; it is counted."""
    metrics.count_rejection(metrics.Rejected.OVERLOAD)
    seconds = admission.retry_after()
    message = f"{admission.inside} requests are inside, of {admission.most} that fit; try again in {seconds} s"
    return Problem(429, message, "overloaded", retry_after=seconds)


def handle_errors(app: FastAPI) -> None:
    """Let `app` answer all errors in this form."""
    app.add_exception_handler(Problem, _problem)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http)


async def _problem(_: Request, problem: Exception) -> Response:
    assert isinstance(problem, Problem)  # noqa: S101 - starlette's type of a handler
    return JSONResponse(problem.body, problem.status, problem.headers)


async def _http(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101
    code = {404: "not_found", 405: "method_not_allowed", 400: "invalid_body"}.get(error.status_code, "error")
    reason = f": {error.__cause__}" if error.__cause__ else ""  # of a body that FastAPI cannot parse
    body = error_body(f"{error.detail}{reason}"[:2000], "invalid_request_error", code)
    return JSONResponse(body, error.status_code, error.headers)


async def _invalid(request: Request, error: Exception) -> Response:
    """What is wrong with a body, the first mistakes at once: where, what was expected, what was found."""
    assert isinstance(error, RequestValidationError)  # noqa: S101
    metrics.count_rejection(metrics.Rejected.INVALID)
    found = error.errors()[:MAX_MISTAKES]
    parts = [_field_path(one) for one in found]
    messages = [
        f"{part}: {_reason(one)}{_suggestion(request, one)}" if part else _reason(one)
        for part, one in zip(parts, found, strict=True)
    ]
    if found[0]["type"] in ("model_attributes_type", "dict_type") or found[0]["loc"] == ("body",):
        messages.append("send a JSON object with the header 'Content-Type: application/json'")
    message = "; ".join(dict.fromkeys(messages))[:2000]
    safe = message.encode(errors="backslashreplace").decode()
    return JSONResponse(error_body(safe, "invalid_request_error", "invalid_request", parts[0] or None), 422)


def _field_path(error: dict[str, Any]) -> str:
    """The field, as "messages.0.content"; without pydantic's names of the alternatives that a field has."""
    if error["type"] == "json_invalid":
        return ""
    parts = [str(part) for part in error["loc"][1:]]
    chosen = parts[-1:] if error["type"] == "extra_forbidden" else []  # a name that the client chose
    place = ".".join([*(part for part in parts[: len(parts) - len(chosen)] if "[" not in part), *chosen])
    return place if len(place) <= MAX_FIELD_PATH else f"{place[:MAX_FIELD_PATH]}..."


def _suggestion(request: Request, error: dict[str, Any]) -> str:
    """The known field that an unknown one may stand for."""
    *path, name = error["loc"]
    if error["type"] != "extra_forbidden" or len(name) > MAX_FIELD_PATH:
        return ""
    known = {_simplify(field): field for field in _fields(request, path)}
    near = get_close_matches(_simplify(name), known, n=1, cutoff=MIN_LIKENESS)
    return f"; did you mean {known[near[0]]}?" if near else ""


def _simplify(name: str) -> str:
    """Without what tells topP and top-p from top_p."""
    return name.lower().replace("_", "").replace("-", "")


def _fields(request: Request, path: list[str | int]) -> list[str]:
    """The fields of the object at this place of the body."""
    for part in reversed(path):
        if part in INNER:
            return list(INNER[part].model_fields)
    body = schema.PredictRequest if request.url.path == "/predict" else schema.ChatRequest
    return list(body.model_fields)


def _reason(error: dict[str, Any]) -> str:
    if error["type"] == "json_invalid":
        return f"the body is not JSON: {error['ctx']['error']} at character {error['loc'][1]}"
    return str(error["msg"]).removeprefix("Value error, ")


ERRORS: dict[int | str, dict[str, Any]] = {
    400: {"model": schema.Error, "description": "The body cannot be read, or the question is too long for the model."},
    401: {"model": schema.Error, "description": "A key is needed, and this is not it."},
    408: {"model": schema.Error, "description": "The request did not arrive in time."},
    413: {"model": schema.Error, "description": "The body is over the limit."},
    415: {"model": schema.Error, "description": "The body is packed, and not as gzip."},
    422: {"model": schema.Error, "description": "The request is not valid."},
    431: {"model": schema.Error, "description": "The first line and the headers are over the limit."},
    429: {"model": schema.Error, "description": "Too many requests inside; Retry-After tells when to come again."},
    503: {"model": schema.Error, "description": "Loading, stopping, or the engine died."},
}
# by reference: FastAPI would announce a model as HTML or plain text on the routes that answer so
KEY_ERROR: dict[int | str, dict[str, Any]] = {
    401: {
        "description": ERRORS[401]["description"],
        "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}},
    }
}


def stream_of(*names: str) -> dict[str, Any]:
    """The events that a stream is made of, as OpenAPI 3.2 and FastAPI describe them; data is JSON."""
    properties: dict[str, Any] = {"data": {"type": "string"}}
    if names:
        properties["event"] = {"enum": list(names)}
    item = {"type": "object", "properties": properties, "required": list(properties)}
    return {"content": {"text/event-stream": {"itemSchema": item}}}


def engine_problem(error: EngineDied) -> Problem:
    """The engine ended, or failed with this request alone. A stream that has begun sends the body as an event."""
    if isinstance(error, EngineFailed):
        return Problem(503, f"the engine could not answer: {error}", "engine_failed", retry_after=1)
    return Problem(503, "the engine died while it answered; try again", "engine_died", retry_after=5)
