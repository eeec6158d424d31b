"""The middleware before every route: limits on head and body, the key, room, and the 500 of an unexpected error.

It is plain ASGI, since starlette's BaseHTTPMiddleware hides a disconnected client from the route. It does not know what
a request asks.
"""

import asyncio
import base64
import binascii
import hmac
import json
import logging

from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serve.http import metrics
from serve.http.connection import MAX_HEAD
from serve.http.errors import error_body, overload_problem
from serve.http.state import AppState

log = logging.getLogger(__name__)
OPEN_PATHS = ("/health", "/health/live", "/health/ready")
"""Need no key."""
MAX_DISCARDED = 64 * 2**20
"""Bytes over the limit that are read and discarded: a client cut off while it sends would not see the 413."""
CLOSE = {"connection": "close"}
CHALLENGE = 'Basic realm="Kickoff", Bearer realm="Kickoff"'


async def send_json(send: Send, status: int, body: dict[str, object], headers: dict[str, str]) -> None:
    """Send a whole response with a JSON body."""
    content = json.dumps(body).encode()
    fields = {"content-type": "application/json", "content-length": str(len(content)), **headers}
    raw = [(name.encode(), value.encode()) for name, value in fields.items()]
    await send({"type": "http.response.start", "status": status, "headers": raw})
    await send({"type": "http.response.body", "body": content})


class ServerErrors:
    """Logs an unexpected error of a route and responds 500; a response that has begun is cut off."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        started = False

        async def watched_send(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            await self.app(scope, receive, watched_send)
        except Exception:
            if started:
                raise  # uvicorn logs it, and closes the connection
            log.exception("an internal error")
            message = "internal server error; see the server's log"
            await send_json(send, 500, error_body(message, "server_error", "internal"), {})


class HeadLimit:
    """Responds 431 to a request whose first line and headers are over MAX_HEAD bytes, before the key is checked."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        line = len(scope["method"]) + len(scope.get("raw_path") or b"") + len(scope["query_string"])
        size = line + sum(len(name) + len(value) + 4 for name, value in scope["headers"])
        if size <= MAX_HEAD:
            return await self.app(scope, receive, send)
        metrics.count_rejection(metrics.Rejected.TOO_LARGE)
        message = f"the request's head has {size} bytes, and the limit of this server is {MAX_HEAD}"
        body = error_body(message, "invalid_request_error", "head_too_large")
        return await send_json(send, 431, body, CLOSE)


class KeyCheck:
    """Responds 401 without the key: `Authorization: Bearer`, `X-API-Key`, or Basic, which browsers send."""

    def __init__(self, app: ASGIApp, key: str) -> None:
        self.app = app
        self.keys = [key.encode(), key.encode("latin-1")]  # clients encode non-ASCII characters in either way

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in OPEN_PATHS or self._is_valid(dict(scope["headers"])):
            return await self.app(scope, receive, send)
        metrics.count_rejection(metrics.Rejected.UNAUTHORIZED)
        body = error_body(
            "a valid key is required: send it as 'Authorization: Bearer KEY' or 'X-API-Key: KEY'",
            "authentication_error",
            "invalid_api_key",
        )
        return await send_json(send, 401, body, {"www-authenticate": CHALLENGE})

    def _is_valid(self, headers: dict[bytes, bytes]) -> bool:
        scheme, _, sent_key = headers.get(b"authorization", b"").partition(b" ")
        if scheme.lower() == b"basic":
            try:
                sent_key = base64.b64decode(sent_key, validate=True).partition(b":")[2]
            except binascii.Error:
                sent_key = b""
        elif scheme.lower() != b"bearer":
            sent_key = b""
        sent = (sent_key.strip(), headers.get(b"x-api-key", b"").strip())
        return (
            sum(hmac.compare_digest(one, key) for one in sent for key in self.keys) > 0
        )  # compares all of them each time, so that timing tells nothing


class RoomCheck:
    """Responds 429 on `paths` while no place is free, so that under overload most requests end here, at little cost.

    A request for several places is rejected later, once it has been read.
    """

    def __init__(self, app: ASGIApp, paths: frozenset[str]) -> None:
        self.app = app
        self.paths = paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] in self.paths and scope["method"] == "POST":
            state: AppState = scope["app"].state.kickoff
            if state.admission.full and not state.unavailable_reason():
                problem = overload_problem(state.admission)
                return await send_json(send, problem.status, problem.body, problem.headers)
        return await self.app(scope, receive, send)


class BodyLimit:
    """Responds 413 to a body over `most` bytes, of which no more are kept, and 408 to one not complete in `seconds`."""

    def __init__(self, app: ASGIApp, most: int, seconds: float) -> None:
        self.app = app
        self.most, self.seconds = most, seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        declared = dict(scope["headers"]).get(b"content-length", b"0")
        try:
            async with asyncio.timeout(self.seconds):
                body = await _body(receive, int(declared) if declared.isdigit() else 0, self.most)
        except TimeoutError:
            return await self._too_slow(send)
        except ClientDisconnect:
            return None
        if body is None:
            return await send_too_large(send, self.most)
        return await self.app(scope, replay(body, receive), send)

    async def _too_slow(self, send: Send) -> None:
        metrics.count_rejection(metrics.Rejected.SLOW)
        message = f"the body did not arrive within {self.seconds:g} s"
        await send_json(send, 408, error_body(message, "invalid_request_error", "request_timeout"), CLOSE)


async def _body(receive: Receive, declared: int, most: int) -> bytes | None:
    """Read the body; None if it is over `most` bytes. `declared`: the size in its Content-Length, else 0."""
    chunks, received, more = [], 0, True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        more = message.get("more_body", False)
        received += len(message.get("body", b""))
        if max(declared, received) <= most:
            chunks.append(message.get("body", b""))
        elif received > most + MAX_DISCARDED:
            break
    return b"".join(chunks) if max(declared, received) <= most else None


def replay(body: bytes, receive: Receive) -> Receive:
    """Make a `receive` that returns the whole body, and after it what `receive` returns."""
    unread: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def again() -> Message:
        return unread.pop() if unread else await receive()

    return again


async def send_too_large(send: Send, most: int) -> None:
    """Respond 413 and count it."""
    metrics.count_rejection(metrics.Rejected.TOO_LARGE)
    message = f"the body is larger than {most} bytes, the limit of this server"
    await send_json(send, 413, error_body(message, "invalid_request_error", "too_large"), CLOSE)
