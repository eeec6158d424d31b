"""What every request passes before its route: it is counted, its key fits, there is room, its body is not too large.

Plain ASGI, since starlette's BaseHTTPMiddleware hides from a route that its client has left.
"""

import base64
import binascii
import hmac
import json

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serve import metrics
from serve.errors import error_body, overloaded
from serve.serving import Serving

OPEN = ("/health/live", "/health/ready")
READ_ON = 64 * 2**20
"""Bytes over the limit that are still read and thrown away: a client cut off while it sends does not see why."""
CHALLENGE = 'Basic realm="Kickoff", Bearer realm="Kickoff"'


async def _answer(send: Send, status: int, body: dict[str, object], headers: dict[str, str]) -> None:
    content = json.dumps(body).encode()
    fields = {"content-type": "application/json", "content-length": str(len(content)), **headers}
    raw = [(name.encode(), value.encode()) for name, value in fields.items()]
    await send({"type": "http.response.start", "status": status, "headers": raw})
    await send({"type": "http.response.body", "body": content})


class Count:
    """Counts answers by route and status; a path that is none of `paths` and has no route counts as "other"."""

    def __init__(self, app: ASGIApp, paths: frozenset[str]) -> None:
        self.app = app
        self.paths = paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)

        begun = False

        def count(status: int) -> None:
            known = scope["path"] if scope["path"] in self.paths else "other"
            metrics.REQUESTS.labels(getattr(scope.get("route"), "path", known), str(status)).inc()

        async def counted(message: Message) -> None:
            nonlocal begun
            if message["type"] == "http.response.start":
                begun = True
                count(message["status"])
            await send(message)

        try:
            await self.app(scope, receive, counted)
        except Exception:
            if not begun:
                count(500)  # what starlette answers, outside of all middleware
            raise


class Key:
    """Asks for the key: `Authorization: Bearer`, `X-API-Key`, or Basic, which is what a browser can send for a page."""

    def __init__(self, app: ASGIApp, key: str) -> None:
        self.app = app
        self.key = key.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in OPEN or self._opens(dict(scope["headers"])):
            return await self.app(scope, receive, send)
        metrics.REJECTED.labels("unauthorized").inc()
        body = error_body(
            "a key is needed: send it as 'Authorization: Bearer KEY' or 'X-API-Key: KEY'",
            "authentication_error",
            "invalid_api_key",
        )
        return await _answer(send, 401, body, {"www-authenticate": CHALLENGE})

    def _opens(self, headers: dict[bytes, bytes]) -> bool:
        scheme, _, given = headers.get(b"authorization", b"").partition(b" ")
        if scheme.lower() == b"basic":
            try:
                given = base64.b64decode(given, validate=True).partition(b":")[2]
            except binascii.Error:
                given = b""
        elif scheme.lower() != b"bearer":
            given = b""
        same = hmac.compare_digest(given.strip(), self.key)
        return hmac.compare_digest(headers.get(b"x-api-key", b""), self.key) or same


class Room:
    """Answers 429 on `paths` while not a single place is free: under overload most requests end here, at little cost.

    A request that wants several places is turned away later, where it has been read.
    """

    def __init__(self, app: ASGIApp, paths: frozenset[str]) -> None:
        self.app = app
        self.paths = paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] in self.paths and scope["method"] == "POST":
            serving: Serving = scope["app"].state.serving
            if serving.admission.full and not serving.unready():
                problem = overloaded(serving.admission)
                return await _answer(send, problem.status, problem.body, problem.headers)
        return await self.app(scope, receive, send)


class BodyLimit:
    """Answers 413 to a body over `most` bytes, of which no more than that is kept."""

    def __init__(self, app: ASGIApp, most: int) -> None:
        self.app = app
        self.most = most

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        told = dict(scope["headers"]).get(b"content-length", b"0")
        size = int(told) if told.isdigit() else 0
        chunks, received, more = [], 0, True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return None
            chunk = message.get("body", b"")
            more = message.get("more_body", False)
            received += len(chunk)
            size = max(size, received)
            if size <= self.most:
                chunks.append(chunk)
            elif received > self.most + READ_ON:
                break
        if size > self.most:
            return await self._refuse(send)
        whole: list[Message] = [{"type": "http.request", "body": b"".join(chunks), "more_body": False}]

        async def replay() -> Message:
            return whole.pop() if whole else await receive()

        return await self.app(scope, replay, send)

    async def _refuse(self, send: Send) -> None:
        metrics.REJECTED.labels("too_large").inc()
        body = error_body(
            f"the body is larger than {self.most} bytes, the limit of this server", "invalid_request_error", "too_large"
        )
        await _answer(send, 413, body, {"connection": "close"})
