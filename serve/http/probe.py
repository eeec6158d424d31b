"""Finds out whether a client that has closed its half of the connection is still there to read its answer.

TCP says the same of one that listens and of one that has gone. So the answer's first bytes are sent ahead, one by one:
they are right for a client that listens, and the system of one that has gone refuses them, which ends the connection.

It knows uvicorn's cycle of a request, whose transport it takes the place of. It does not know what the answer is.
"""

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

FIRST = b"HTTP/1.1 "
"""What every answer begins with, whatever its status."""
PAUSES = (0, 0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4)
"""Seconds before each byte of FIRST."""


class Probe:
    """A transport to which the first bytes of the answer have been written before the answer."""

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
        self._transport.write(data[self._sent :])
        self._sent = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)
