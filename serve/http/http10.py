"""Responses to HTTP/1.0 clients, which know no chunked encoding: a body without a length ends with the connection.

uvicorn would send such a client chunk sizes in the middle of the body. It knows ASGI and uvicorn's request cycle. It
does not know what the response holds.
"""

from typing import Any

from uvicorn._types import ASGI3Application, ASGISendEvent
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle


def without_chunks(app: ASGI3Application, cycle: RequestResponseCycle) -> ASGI3Application:
    """Wrap `app` so that the response to the request of `cycle` is not chunked."""
    cycle.keep_alive = False
    cycle.waiting_for_100_continue = False  # HTTP/1.0 has no 100 Continue either

    async def run(scope: Any, receive: Any, send: Any) -> None:
        has_length = True

        async def raw(message: ASGISendEvent) -> None:
            nonlocal has_length
            if message["type"] == "http.response.start":
                has_length = any(name.lower() == b"content-length" for name, _ in message.get("headers", []))
                if not has_length:
                    cycle.chunked_encoding = False
            elif message["type"] == "http.response.body" and not has_length:
                cycle.expected_content_length = len(message.get("body", b""))  # uvicorn sends no more than it expects
            await send(message)

        await app(scope, receive, raw)

    return run
