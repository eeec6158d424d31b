"""Limits each client connection: how long it may take to send and to read, and what happens to an invalid request.

uvicorn limits neither. Here a request that does not arrive in time gets 408, one whose head never ends 431, one that is
not HTTP 400. A response that its client does not read is cut off shortly after the request's deadline, which frees its
places. A client that has closed its half of the connection (shutdown of the sending side) still gets its response.

It knows bytes, times and uvicorn's protocol class, which it extends by the callbacks of the HTTP parser. It does not
know routes. A slow body of a request that a route already handles gets its 408 in `middleware.py`.
"""

import asyncio
import contextlib
import json
import socket
import time
from collections.abc import Callable, Iterable, Sized
from functools import partial
from typing import Any

from uvicorn._types import ASGI3Application
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from serve.http.access import count_answer, log_request
from serve.http.errors import error_body
from serve.http.http10 import without_chunks
from serve.http.parser import Parser
from serve.http.probe import Probe
from serve.http.request_id import HEADER, id_of
from serve.settings import Settings

MAX_HEAD = 2**15
"""Bytes of a request's first line and headers together; clients and proxies send about a tenth of it."""
GRACE_SECONDS = 5.0
"""For a response that is complete at its deadline to reach the client."""
MAX_PIPELINED = 16
"""Pipelined requests that are read ahead. A client that disconnects is noticed only while the server reads."""
REASONS = {400: "Bad Request", 408: "Request Timeout", 431: "Request Header Fields Too Large"}


class Connection(HttpToolsProtocol):
    """uvicorn's connection with limits: `read_seconds` for a request, `answer_seconds` and a grace for its response."""

    def __init__(
        self, *args: Any, read_seconds: float, answer_seconds: float, listener: socket.socket, **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        self.listener = listener
        self.parser = Parser(self)  # type: ignore[assignment]
        self.read_seconds, self.answer_seconds = read_seconds, answer_seconds
        self.running: RequestResponseCycle | None = None  # `cycle` is the newest, which may wait behind it
        self.in_head = self.in_body = False
        self.ended = False  # what arrives from now on is ignored
        self.half_closed = False  # the client has closed its half
        self.fed = 0  # bytes since the connection began, the last head ended, or the last piece of a body
        self.read_timer: asyncio.TimerHandle | None = None
        self.answer_timer: asyncio.TimerHandle | None = None

    @property
    def answering(self) -> bool:
        """Whether a request is with the application."""
        return bool(self.pipeline) or (self.cycle is not None and not self.cycle.response_complete)

    # asyncio's callbacks

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.flow = _Flow(transport, self.pipeline)
        self._start_idle_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        for timer in (self.read_timer, self.answer_timer):
            if timer:
                timer.cancel()
        self.pipeline.clear()
        super().connection_lost(exc)
        if self.running and not self.running.response_complete:  # uvicorn notifies the newest only
            self.running.disconnected = True
            self.running.message_event.set()

    def data_received(self, data: bytes) -> None:
        if self.ended or self.transport.is_closing():
            return
        self.fed += len(data)
        super().data_received(data)
        if not (self.in_head or self.in_body or self.answering or self.transport.is_closing()):
            self._start_idle_timer()  # uvicorn has stopped the timer: blank lines came, or the rest of a refused body
        if self.fed > MAX_HEAD and not self.transport.is_closing() and (self.in_head or self.in_body):
            self._refuse(431, f"the request's head is longer than {MAX_HEAD} bytes, the limit of this server", "head")

    def eof_received(self) -> bool:  # type: ignore[override]
        """Handle a client that has closed its half or has gone; TCP reports both alike. True keeps our half open."""
        if not self.answering or (self.in_body and self.cycle is self.running):
            return False
        self._drop_incomplete()
        self.half_closed = True
        if self.running:
            Probe(self.loop, self.running)
        return True

    # the HTTP parser's callbacks

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.in_head = True
        if self.read_timer is None:
            self._start_read_timer()

    def on_headers_complete(self) -> None:
        self.fed = 0
        super().on_headers_complete()  # raises for an invalid address
        self.in_head, self.in_body = False, True
        # uvicorn adds the trailers of a chunked body to the same list, which must not count as headers such as the key
        self.scope["headers"] = list(self.headers)
        if self.pipeline:
            self.flow.resume_reading()  # uvicorn has paused it

    def on_body(self, body: bytes) -> None:
        self.fed = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        self.in_body = False
        self.fed = 0
        if self.read_timer:
            self.read_timer.cancel()
            self.read_timer = None
        super().on_message_complete()
        self.cycle.waiting_for_100_continue = (
            False  # the body is complete, and bytes of the response may have been sent
        )
        if self.cycle is self.running and not self.cycle.response_complete:
            self._start_answer_timer(self.cycle)

    # uvicorn's

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        self.running = cycle
        if cycle.scope["http_version"] < "1.1":
            app = without_chunks(app, cycle)
        super()._start_asgi_task(cycle, app)
        self._start_answer_timer(cycle)
        if self.half_closed:
            Probe(self.loop, cycle)

    def on_response_complete(self) -> None:
        super().on_response_complete()
        unread = self.transport.get_write_buffer_size()
        if self.answer_timer and self.running and self.running.response_complete and not unread:
            self.answer_timer.cancel()

    def send_400_response(self, msg: str) -> None:
        """Refuse data that is not HTTP."""
        self._refuse(400, "this is not a valid HTTP/1.1 request", "invalid_http")

    def shutdown(self) -> None:
        """End with the server: uvicorn has closed its copy of the listening socket and notifies every connection."""
        stop_listening(self.listener)
        super().shutdown()

    def _start_idle_timer(self) -> None:
        seconds = self.timeout_keep_alive if self.cycle else max(self.timeout_keep_alive, self.read_seconds)
        self._unset_keepalive_if_required()
        self.timeout_keep_alive_task = self.loop.call_later(seconds, self.timeout_keep_alive_handler)

    def _start_read_timer(self) -> None:
        self.read_timer = self.loop.call_later(self.read_seconds, self._on_read_timeout)

    def _on_read_timeout(self) -> None:
        self.read_timer = None
        if self.transport.is_closing():
            return
        if self.flow.read_paused or (self.answering and (self.in_head or self.in_body)):
            self._start_read_timer()  # the server is slow, not the client
        elif self.in_head:
            self._refuse(408, f"the request did not arrive within {self.read_seconds:g} s", "request_timeout")
        elif not self.answering:
            self.transport.close()  # the response was sent before the body was complete

    def _start_answer_timer(self, cycle: RequestResponseCycle) -> None:
        """Start the timer when the application gets the request, with time for its body; again once it is complete."""
        if self.answer_timer:
            self.answer_timer.cancel()  # of the previous request, whose last bytes may still be in the buffer
        seconds = self._seconds(cycle.scope["headers"]) + GRACE_SECONDS + (self.read_seconds if cycle.more_body else 0)
        self.answer_timer = self.loop.call_later(seconds, self._on_answer_timeout)

    def _on_answer_timeout(self) -> None:
        """Abort a connection whose client does not read; the rest of the response would stay in memory for ever."""
        if self.answering or self.transport.get_write_buffer_size():
            self.transport.abort()

    def _seconds(self, headers: Iterable[tuple[bytes, bytes]]) -> float:
        """The time limit that the request asks for; its route refuses one that is not a number."""
        for name, value in headers:
            if name == b"x-request-timeout":
                try:
                    return max(0.0, min(float(value), self.answer_seconds))
                except ValueError:
                    break
        return self.answer_seconds

    def _drop_incomplete(self) -> None:
        """Drop a request that is not complete; the connection closes after the responses to those before it."""
        if self.in_body:
            self.pipeline.popleft()
            self.cycle = self.pipeline[0][0] if self.pipeline else self.running  # type: ignore[assignment]
        self.in_head = self.in_body = False
        self.ended = True
        self.cycle.keep_alive = False

    def _refuse(self, status: int, message: str, code: str) -> None:
        """Respond instead of the application, which has not seen the whole request, and close the connection."""
        if self.answering and not (self.in_body and self.cycle is self.running):
            self._drop_incomplete()
            return
        if self.in_body and self.cycle.response_started:
            (self.transport.close if self.cycle.response_complete else self.transport.abort)()
            return
        state = self.scope["state"] if self.in_body else {}
        id = state.setdefault("request_id", id_of(self.headers if self.in_head or self.in_body else ()))
        content = json.dumps(error_body(message, "invalid_request_error", code)).encode()
        head = (
            f"HTTP/1.1 {status} {REASONS[status]}\r\ncontent-type: application/json\r\n"
            f"content-length: {len(content)}\r\nconnection: close\r\n{HEADER.decode()}: {id}\r\n\r\n"
        )
        self.transport.write(head.encode() + content)
        self.transport.close()
        if self.in_body:
            state["refused"] = status  # for the request's own log line
            return
        count_answer("other", status)
        log_request("-", "-", status, time.monotonic(), id)


def connection(settings: Settings, listener: socket.socket) -> Callable[..., Connection]:
    """Make the protocol factory that uvicorn takes as `http`."""
    return partial(Connection, read_seconds=settings.read_seconds, answer_seconds=settings.timeout, listener=listener)


def stop_listening(listener: socket.socket) -> None:
    """Refuse new connections from now on, even if other processes hold the socket open.

    Otherwise the system would accept them, and they would wait until the last of those processes has ended.
    """
    with contextlib.suppress(OSError):  # already done, or macOS, which cannot
        listener.shutdown(socket.SHUT_RDWR)


class _Flow(FlowControl):
    """Continues reading while at most `MAX_PIPELINED` requests wait; uvicorn stops at one."""

    def __init__(self, transport: asyncio.Transport, waiting: Sized) -> None:
        super().__init__(transport)
        self._waiting = waiting

    def resume_reading(self) -> None:
        if len(self._waiting) <= MAX_PIPELINED:
            super().resume_reading()
