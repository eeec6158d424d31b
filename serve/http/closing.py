"""Adds `Connection: close` to every response while the server shuts down.

A load balancer that keeps connections open then opens its next one to another server. It knows one header. It does not
know why or how the server stops.
"""

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serve.http.state import AppState


class Closing:
    """The middleware; it does nothing until the server is shutting down."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        state: AppState = scope["app"].state.kickoff

        async def closing(message: Message) -> None:
            if message["type"] == "http.response.start" and state.shared.stopping.is_set():
                others = [(name, value) for name, value in message.get("headers", []) if name.lower() != b"connection"]
                message = {**message, "headers": [*others, (b"connection", b"close")]}
            await send(message)

        return await self.app(scope, receive, closing)
