"""Client: a small HTTP/1.1 client with one keep-alive connection, which records when each part of a response arrives.

The load generator runs on the cores that it measures, so a client that takes a tenth of them would distort the result.
General clients spend about a hundred microseconds on a request and ten on each event of a stream. This one supports
only what the measured servers send (a status, a length or chunks), and parses the events after the response. It knows
neither questions nor answers. No TLS, no redirects, no compression.
"""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Response:
    """A response; `parts` are the body's pieces with their arrival times. Times are `time.perf_counter()`."""

    status: int
    sent: float
    ended: float
    parts: list[tuple[float, bytes]]

    @property
    def seconds(self) -> float:
        """Seconds from sending the request to the end of the response."""
        return self.ended - self.sent

    def json(self) -> Any:
        """Parse the body as JSON."""
        return json.loads(b"".join(data for _, data in self.parts))

    def events(self) -> list[tuple[float, dict[str, Any]]]:
        """Parse the body as server-sent events: the JSON objects, each with its arrival time."""
        events, rest = [], b""
        for at, data in self.parts:
            *complete, rest = (rest + data).replace(b"\r\n", b"\n").split(b"\n\n")
            events += [(at, content) for event in complete if (content := _content(event)) is not None]
        return events


def _content(event: bytes) -> dict[str, Any] | None:
    data = b"\n".join(line[5:].strip() for line in event.split(b"\n") if line.startswith(b"data:"))
    return json.loads(data) if data and data != b"[DONE]" else None


class Connection:
    """A connection to a server on the loopback, opened when needed and reopened if the server has closed it."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None

    async def ask(self, method: str, path: str, body: dict[str, Any] | None = None) -> Response:
        """Send a request and read the response.

        Raises:
            OSError: There is no connection.
            EOFError: The connection ended in the middle.
            ValueError: The response is not HTTP.
        """
        reader = await self.send(method, path, body)
        sent = self._sent
        head = await reader.readuntil(b"\r\n\r\n")
        status = int(head[9:12])
        fields = dict(line.lower().split(b": ", 1) for line in head.rstrip().split(b"\r\n")[1:])
        parts = [(time.perf_counter(), data) async for data in _body(reader, fields)]
        if fields.get(b"connection") == b"close":
            self.close()
        return Response(status, sent, time.perf_counter(), parts)

    async def send(self, method: str, path: str, body: dict[str, Any] | None) -> asyncio.StreamReader:
        """Send a request without reading the response."""
        content = b"" if body is None else json.dumps(body).encode()
        head = (
            f"{method} {path} HTTP/1.1\r\nhost: 127.0.0.1:{self._port}\r\ncontent-type: application/json\r\n"
            f"content-length: {len(content)}\r\n\r\n"
        )
        self._sent = time.perf_counter()
        reader, writer = await self._open()
        writer.write(head.encode() + content)
        return reader

    async def _open(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if self._reader is None or self._writer is None or self._reader.at_eof() or self._writer.is_closing():
            self.close()
            self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port)
        return self._reader, self._writer

    def close(self) -> None:
        """Close the connection, if it is open."""
        if self._writer is not None:
            self._writer.close()
        self._reader = self._writer = None


async def _body(reader: asyncio.StreamReader, fields: dict[bytes, bytes]) -> AsyncIterator[bytes]:
    if fields.get(b"transfer-encoding") != b"chunked":
        yield await reader.readexactly(int(fields.get(b"content-length", b"0")))
        return
    while size := int(await reader.readline(), 16):
        yield (await reader.readexactly(size + 2))[:-2]
    await reader.readline()
