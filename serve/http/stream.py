"""A stream of server-sent events, and how it is kept alive while nothing comes.

What goes wrong before the first event is an error with its status. A first event that takes longer (the request waits
for a place, or its prompt is long) is not waited for: the stream begins with a comment, and what goes wrong from then
on is an event. Proxies close a connection on which nothing comes, most of them after 60 s, so a comment goes out
wherever nothing has come for a while. Clients pass over comments.

It knows ASGI and our errors. It does not know what the events say, nor how answers are made.
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable

from fastapi import Response
from starlette.types import Receive, Scope, Send

from serve.http.disconnect import ClientDisconnected, cancel_on_disconnect
from serve.http.errors import Problem

SOON = 1.0
"""Seconds in which the first event, or an error, decides the status."""
PAUSE = 5.0
"""Seconds without an event after which a comment goes out."""
COMMENT = b": waiting\n\n"
Write = Callable[[bytes], Awaitable[None]]


class EventStream(Response):
    """The response. Whatever happens, also if the client has left before, the events are closed and `leave` called."""

    media_type = "text/event-stream"

    def __init__(
        self,
        first: asyncio.Future[str],
        events: AsyncGenerator[str],
        as_event: Callable[[Problem], str],
        leave: Callable[[], None],
    ) -> None:
        self.first, self.events, self.as_event, self.leave = first, events, as_event, leave
        self.sent_at = 0.0
        self.status_code, self.background = 200, None
        self.init_headers({"cache-control": "no-cache", "x-accel-buffering": "no"})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            with contextlib.suppress(ClientDisconnected, OSError):
                await cancel_on_disconnect(receive, self._send(send))
        finally:
            await close(self.first, self.events, self.leave)

    async def _send(self, send: Send) -> None:
        loop = asyncio.get_running_loop()

        async def write(data: bytes) -> None:
            await send({"type": "http.response.body", "body": data, "more_body": True})
            self.sent_at = loop.time()

        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        if not self.first.done():
            await write(COMMENT)
        self.sent_at = loop.time()
        comments = asyncio.create_task(self._comment(write))
        try:
            await self._write_events(write)
        finally:
            comments.cancel()
            await asyncio.gather(comments, return_exceptions=True)
        await send({"type": "http.response.body", "body": b""})

    async def _write_events(self, write: Write) -> None:
        try:
            await write((await self.first).encode())
            async for event in self.events:
                await write(event.encode())
        except Problem as problem:
            await write(self.as_event(problem).encode())

    async def _comment(self, write: Write) -> None:
        """Where the client does not read, `write` waits, and so do the comments."""
        loop = asyncio.get_running_loop()
        while True:
            if (quiet := loop.time() - self.sent_at) >= PAUSE:
                await write(COMMENT)
            else:
                await asyncio.sleep(PAUSE - quiet)


async def start_stream(
    receive: Receive, events: AsyncGenerator[str], as_event: Callable[[Problem], str], leave: Callable[[], None]
) -> EventStream:
    """The stream of `events`, which is left to the response from then on; `as_event` is how a late error is told.

    Raises:
        Problem: of the events, which came before the first of them, and soon.
        ClientDisconnected: the client has left.
    """
    first = asyncio.ensure_future(anext(events))
    try:
        await cancel_on_disconnect(receive, asyncio.wait({first}, timeout=SOON))
        if first.done():
            first.result()
    except BaseException:
        await close(first, events, leave)
        raise
    return EventStream(first, events, as_event, leave)


async def close(first: asyncio.Future[str], events: AsyncGenerator[str], leave: Callable[[], None]) -> None:
    """End the events, wherever they are, and give the places back."""
    try:
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
        await events.aclose()
    finally:
        leave()
