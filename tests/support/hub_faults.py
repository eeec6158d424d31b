"""How a request to the test Hub goes wrong, as networks and servers do."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field

from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol


@dataclass
class Fault:
    """Spoils the next `times` requests of this method ("*": any) and path, after letting `skip` of them pass.

    Without further options the answer is `status` with `headers`. `hang`: no answer until the server stops.
    `cut_after`: the connection drops after that many bytes of the body, of the request for PUT and POST, of
    the answer otherwise. `reset`: the connection drops at once. `lose_answer`: the request takes effect, and then
    the connection drops.
    """

    method: str
    path: str  # a regular expression
    times: int = 1
    skip: int = 0
    status: int = 503
    headers: Mapping[str, str] = field(default_factory=dict)
    hang: bool = False
    cut_after: int | None = None
    reset: bool = False
    lose_answer: bool = False


class Protocol(H11Protocol):
    """Hands each request the connection it came on, so that a fault can drop it."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.app_state = {**self.app_state, "transport": transport}


async def read_some(receive: Receive, size: int) -> None:
    while size > 0:
        message = await receive()
        size -= len(message.get("body", b""))
        if not message.get("more_body"):
            return


async def cut_answer(app: ASGIApp, scope: Scope, receive: Receive, send: Send, size: int) -> None:
    left = size

    async def send_some(message: Message) -> None:
        nonlocal left
        if message["type"] == "http.response.body":
            body = message["body"][:left]
            left -= len(body)
            message = {**message, "body": body, "more_body": True}
        await send(message)

    await app(scope, receive, send_some)


async def swallow(message: Message) -> None:
    """Stands in for `send` where nothing may reach the client."""
