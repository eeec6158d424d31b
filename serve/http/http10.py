"""An answer to a client of HTTP/1.0, which knows no chunks: what has no length ends where its connection ends.

uvicorn would send such a client the sizes of the chunks in the middle of the body.

It knows ASGI and uvicorn's cycle of a request. It does not know what the answer is.
"""

from typing import Any

from uvicorn._types import ASGI3Application, ASGISendEvent
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle


def without_chunks(app: ASGI3Application, cycle: RequestResponseCycle) -> ASGI3Application:
    """`app`, for the request of `cycle`."""
    cycle.keep_alive = False
    cycle.waiting_for_100_continue = False  # no answer of HTTP/1.0 either

    async def run(scope: Any, receive: Any, send: Any) -> None:
        has_length = True

        async def raw(message: ASGISendEvent) -> None:
            nonlocal has_length
            if message["type"] == "http.response.start":
                has_length = any(name.lower() == b"content-length" for name, _ in message.get("headers", []))
                if not has_length:
                    cycle.chunked_encoding = False
            elif message["type"] == "http.response.body" and not has_length:
                cycle.expected_content_length = len(message.get("body", b""))  # all that uvicorn lets pass
            await send(message)

        await app(scope, receive, raw)

    return run
