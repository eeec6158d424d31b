"""The line between the HTTP process and the engine's process: one Unix socket, one JSON object a line.

HTTP to engine: {"submit": {...}} and {"cancel": id}. Engine to HTTP: {"ready": {...}} once it can answer, then one
message a step, {"beat": {...}, "tokens": [[id, token, finish, started], ...], "failed": [[id, reason], ...]}, the beat
alone twice a second when idle, and {"refused": [id, reason]}.

When either process dies, however it dies, the system closes its end and the other side learns of it at once: every
waiting request fails with `EngineDied`, and an engine whose HTTP process is gone leaves. LitServe's own queues do not
tell (a request then waits for ever), and take a round trip through a third process for each message.

It knows neither HTTP nor models.
"""

import asyncio
import contextlib
import json
import queue
import socket
import threading
import time
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MAX_LINE = 2**26
"""Bytes of a message; a prompt of a million tokens is far below."""
BEAT_SECONDS = 0.5


class EngineRefused(Exception):
    """The engine cannot carry the request out; the text says why. Others are not concerned."""


class EngineDied(Exception):
    """The engine's process ended before the answer was complete, or is not there yet."""


class EngineFailed(EngineDied):
    """The engine gave this request up, as it ran out of memory, and goes on with the others; the text says why."""


@dataclass(frozen=True)
class Step:
    """A token of a request; `finish` on its last: "stop", "length", or "deadline", which brings no token.

    Times are `time.monotonic()`, the same clock in both processes: when the engine began with the request, and when
    the token came here.
    """

    token: int
    finish: str | None
    started: float
    at: float


class _Pending:
    """A request in the engine. `eager`: wake its reader at each token, not only at the end."""

    def __init__(self, eager: bool) -> None:
        self.eager = eager
        self.steps: list[Step] = []
        self.error: Exception | None = None
        self.wake = asyncio.Event()

    def add(self, step: Step) -> None:
        self.steps.append(step)
        if self.eager or step.finish:
            self.wake.set()

    def end(self) -> None:
        now = time.monotonic()
        self.add(Step(-1, "deadline", self.steps[0].started if self.steps else now, now))

    def fail(self, error: Exception) -> None:
        self.error = error
        self.wake.set()


class EngineClient:
    """The HTTP process' side. Everything here runs in its event loop."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.ready: dict[str, Any] | None = None
        self.counts: dict[str, int] = {"steps": 0, "running": 0, "waiting": 0}
        self.last_beat = time.monotonic()
        self.pending: dict[str, _Pending] = {}
        self._writer: asyncio.StreamWriter | None = None
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        """Wait for engines to connect."""
        self._server = await asyncio.start_unix_server(self._connected, self.path, limit=MAX_LINE)
        self.path.chmod(0o600)

    async def close(self) -> None:
        if self._server:
            self._server.close()
        if self._writer:
            self._writer.close()

    @property
    def beat_age(self) -> float:
        """Seconds since the engine last said anything."""
        return time.monotonic() - self.last_beat

    async def generate(
        self, id: str, request: dict[str, Any], deadline: float, eager: bool
    ) -> AsyncGenerator[list[Step]]:
        """The tokens of a request as they come, those of several steps together if the reader is slow.

        At `deadline` (the event loop's clock) the last step says so. `eager` False gives all at the end, at less cost.
        Leaving the iterator early frees the request's place in the engine.

        Raises:
            EngineDied: the engine is not there, left in the middle, or failed with this request (`EngineFailed`).
            EngineRefused: it cannot carry the request out.
        """
        if self._writer is None or self.ready is None:
            raise EngineDied
        pending = self.pending[id] = _Pending(eager)
        timer = asyncio.get_running_loop().call_at(deadline, pending.end)
        finished = False
        self._send({"submit": {"id": id, **request}})
        try:
            while not finished:
                await pending.wake.wait()
                pending.wake.clear()
                if pending.error:
                    finished = True
                    raise pending.error
                steps, pending.steps = pending.steps, []
                finished = any(step.finish in ("stop", "length") for step in steps)
                yield steps
        finally:
            timer.cancel()
            del self.pending[id]
            if not finished:
                self._send({"cancel": id})

    def finish_within(self, seconds: float) -> None:
        """End what is still running after `seconds` with the answers as far as they are."""
        loop = asyncio.get_running_loop()
        loop.call_later(seconds, self._end_all)

    def _end_all(self) -> None:
        for pending in self.pending.values():
            pending.end()

    def _send(self, message: dict[str, Any]) -> None:
        if self._writer is not None:
            self._writer.write(json.dumps(message).encode() + b"\n")

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writer = writer
        try:
            while line := await reader.readline():
                self._received(json.loads(line))
        except ConnectionError:
            pass
        finally:
            self._writer, self.ready = None, None
            writer.close()
            for pending in self.pending.values():
                pending.fail(EngineDied())

    def _received(self, message: dict[str, Any]) -> None:
        self.last_beat = time.monotonic()
        if "ready" in message:
            self.ready = message["ready"]
        self.counts.update(message.get("beat", {}))
        if "refused" in message:
            id, reason = message["refused"]
            if pending := self.pending.get(id):
                pending.fail(EngineRefused(reason))
        for id, reason in message.get("failed", []):
            if pending := self.pending.get(id):
                pending.fail(EngineFailed(reason))
        for id, token, finish, started in message.get("tokens", []):
            if pending := self.pending.get(id):
                pending.add(Step(token, finish, started, self.last_beat))


class EngineLink:
    """The engine process' side: commands are taken between steps, events are sent after each."""

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._commands: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
        self._connect(path)
        threading.Thread(target=self._read, name="commands", daemon=True).start()

    def _connect(self, path: Path, patience_seconds: float = 30) -> None:
        """The HTTP process and this one start side by side; whoever is first waits."""
        give_up = time.monotonic() + patience_seconds
        while True:
            try:
                return self._socket.connect(str(path))
            except (FileNotFoundError, ConnectionRefusedError):
                if time.monotonic() > give_up:
                    raise
                time.sleep(0.02)

    def commands(self, wait: bool) -> list[dict[str, Any]]:
        """What has come since the last call; with `wait`, up to half a second is spent waiting for the first.

        Raises:
            EOFError: the HTTP process is gone.
        """
        taken = []
        with contextlib.suppress(queue.Empty):
            taken.append(self._commands.get(block=wait, timeout=BEAT_SECONDS if wait else None))
            while True:
                taken.append(self._commands.get_nowait())
        if None in taken:
            raise EOFError
        return [command for command in taken if command is not None]

    def send(self, message: dict[str, Any]) -> None:
        """
        Raises:
            OSError: the HTTP process is gone.
        """
        self._socket.sendall(json.dumps(message).encode() + b"\n")

    def _read(self) -> None:
        with contextlib.suppress(OSError), self._socket.makefile("rb") as lines:
            for line in lines:
                self._commands.put(json.loads(line))
        self._commands.put(None)
