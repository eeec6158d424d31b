"""Finds out whether a client that has closed its half of the connection still reads the response.

TCP reports the same for a client that reads and for one that has disconnected. So the first bytes of the response are
sent early, one by one: a client that reads expects them anyway, and the system of one that has disconnected rejects
them, which ends the connection.

It knows uvicorn's request cycle, whose transport it replaces. It does not know what the response holds.
"""

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

FIRST = b"HTTP/1.1 "
"""The first bytes of every response, whatever its status."""
PAUSES = (0, 0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4)
"""Seconds before each byte of FIRST."""


class Probe:
    """A transport that writes the first bytes of the response before the response is known."""

    def __init__(self, loop: asyncio.AbstractEventLoop, cycle: RequestResponseCycle) -> None:
        self._loop, self._cycle, self._transport = loop, cycle, cycle.transport
        self._sent = 0
        cycle.transport = self  # type: ignore[assignment]
        self._send_next()

    def _send_next(self) -> None:
        if self._transport.is_closing() or self._cycle.response_started:
            return
        self._transport.write(FIRST[self._sent : self._sent + 1])
        self._sent += 1
        if self._sent < len(FIRST):
            self._loop.call_later(PAUSES[self._sent], self._send_next)

    def write(self, data: bytes) -> None:
        """Write `data` without the bytes of it that have been sent."""
        self._transport.write(data[self._sent :])
        self._sent = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)
