"""Writes one log line per request, counts the responses, and sends each request's id back.

The line has method, path, status, milliseconds, tokens in and out, and the id; never the query, the body or a key.
It knows ASGI and the metrics. It does not know what a request asks.
"""

import logging
import time
from collections.abc import Sequence
from typing import Any, Protocol

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serve.http import metrics
from serve.http.paths import as_route
from serve.http.request_id import HEADER, id_of

log = logging.getLogger("serve.access")
LONGEST_PATH = 200
CLIENT_LEFT = 499
"""The status that nginx logs for a client that disconnects before the response begins."""
UNNAMED = ("method", "path", "status")
"""Fields that a line for people shows without their names."""


class Counted(Protocol):
    """An answer, as far as the log counts it."""

    @property
    def tokens_in(self) -> int:
        """Tokens of the prompt."""

    @property
    def tokens(self) -> int:
        """Tokens of the answer."""


class Access:
    """The outermost middleware. A path that is not in `paths` and has no route counts as "other"."""

    def __init__(self, app: ASGIApp, paths: frozenset[str]) -> None:
        self.app = app
        self.paths = paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        began, asked = time.monotonic(), as_route(scope)
        id = asked["state"].setdefault("request_id", id_of(scope["headers"]))
        status, complete = CLIENT_LEFT, False

        async def watched_send(message: Message) -> None:
            nonlocal status, complete
            if message["type"] == "http.response.start":
                status = message["status"]
                count_answer(self._route(asked), status)
                message = {**message, "headers": [*message.get("headers", []), (HEADER, id.encode())]}
            elif message["type"] == "http.response.body":
                complete = not message.get("more_body", False)
            await send(message)

        try:
            await self.app(asked, receive, watched_send)
        finally:
            if refused := asked["state"].get("refused"):  # the connection has answered instead of the application
                status, complete = refused, True
                count_answer(self._route(asked), status)
            path = scope.get("raw_path", b"").decode("latin-1") or scope["path"]
            log_request(scope["method"], path, status, began, id, asked["state"].get("answers", []), complete)

    def _route(self, asked: Scope) -> str:
        known: str = asked["path"] if asked["path"] in self.paths else "other"
        return str(getattr(asked.get("route"), "path", known))


def count_answer(route: str, status: int) -> None:
    """Count a response of `route` with `status` in the metrics."""
    metrics.REQUESTS.labels(route, str(status)).inc()


def log_request(
    method: str, path: str, status: int, began: float, id: str, answers: Sequence[Counted] = (), complete: bool = True
) -> None:
    """Log a request.

    Args:
        method: of the request.
        path: of the request, without its query.
        status: of the response.
        began: when the request arrived, by `time.monotonic()`.
        id: of the request.
        answers: what the response holds, for its tokens.
        complete: False if the client did not get the whole response.
    """
    fields: dict[str, Any] = {
        "method": method,
        "path": path[:LONGEST_PATH],
        "status": status,
        "ms": round((time.monotonic() - began) * 1000, 1),
    }
    if answers:
        fields |= {"tokens_in": answers[0].tokens_in, "tokens_out": sum(answer.tokens for answer in answers)}
    fields["request_id"] = id
    if not complete:
        fields["cut"] = True
    words = [str(value) if name in UNNAMED else f"{name}={value}" for name, value in fields.items()]
    log.info("%s", " ".join(words), extra={"fields": fields})
