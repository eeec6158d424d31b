"""Sends server-sent events, with comments that keep the connection alive between them.

An error before the first event becomes a response with its own status. If the first event takes longer than
`FIRST_EVENT_SECONDS` (the request waits for a place, or its prompt is long), the stream starts with a comment, and a
later error is sent as an event. Proxies close an idle connection, most of them after 60 s, so a comment is sent after
each `PAUSE` without an event. Clients ignore comments.

It knows ASGI and our errors. It does not know what the events say or how answers are generated.
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable

from fastapi import Response
from starlette.types import Receive, Scope, Send

from serve.http.disconnect import ClientDisconnected, cancel_on_disconnect
from serve.http.errors import Problem

FIRST_EVENT_SECONDS = 1.0
"""Seconds to wait for the first event or an error before the status is sent."""
PAUSE = 5.0
"""Seconds without an event after which a comment is sent."""
COMMENT = b": waiting\n\n"
Write = Callable[[bytes], Awaitable[None]]


class EventStream(Response):
    """The response; in any case, even if the client has disconnected, it closes the events and calls `leave`."""

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
        """Send comments; while the client does not read, `write` waits, and so do they."""
        loop = asyncio.get_running_loop()
        while True:
            if (quiet := loop.time() - self.sent_at) >= PAUSE:
                await write(COMMENT)
            else:
                await asyncio.sleep(PAUSE - quiet)


async def start_stream(
    receive: Receive, events: AsyncGenerator[str], as_event: Callable[[Problem], str], leave: Callable[[], None]
) -> EventStream:
    """Make the response that streams `events`, and closes them at its end.

    Args:
        receive: the request's, which tells whether the client has disconnected.
        events: server-sent events, as text.
        as_event: makes the event of an error that comes after the status was sent.
        leave: gives the request's places back; called once the events are closed.

    Raises:
        Problem: the events raised it before the first of them, within `FIRST_EVENT_SECONDS`.
        ClientDisconnected: the client has disconnected.
    """
    first = asyncio.ensure_future(anext(events))
    try:
        await cancel_on_disconnect(receive, asyncio.wait({first}, timeout=FIRST_EVENT_SECONDS))
        if first.done():
            first.result()
    except BaseException:
        await close(first, events, leave)
        raise
    return EventStream(first, events, as_event, leave)


async def close(first: asyncio.Future[str], events: AsyncGenerator[str], leave: Callable[[], None]) -> None:
    """Close the events, whatever their state, and give the places back."""
    try:
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
        await events.aclose()
    finally:
        leave()
