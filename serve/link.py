"""The line between the HTTP process and the engines' processes: one Unix socket, one JSON object a line.

HTTP to engine: {"submit": {...}} and {"cancel": id}. Engine to HTTP: {"ready": {...}} once it can answer, then one
message a step, {"beat": {...}, "tokens": [[id, token, finish, started], ...], "failed": [[id, reason], ...]}, the beat
alone twice a second when idle, and {"refused": [id, reason]}.

When either process dies, however it dies, the system closes its end and the other side learns of it at once: every
waiting request of that engine fails with `EngineDied`, and an engine whose HTTP process is gone leaves. LitServe's own
queues do not tell (a request then waits for ever), and take a round trip through a third process for each message.

It knows neither HTTP nor models.
"""

import asyncio
import contextlib
import json
import queue
import socket
import threading
import time
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MAX_LINE = 2**26
"""Bytes of a message; a prompt of a million tokens is far below."""
BEAT_SECONDS = 0.5
SILENT_SECONDS = 3.0
"""A few beats: an engine that says nothing for so long may hang."""


class EngineRefused(Exception):
    """The engine cannot carry the request out; the text says why. Others are not concerned."""


class LinkLost(Exception):
    """The HTTP process is gone. Any other error of the system is the engine's own, which ends alone by it."""


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


@dataclass(frozen=True)
class Ready:
    """What an engine says first: its number from 0, its process, tokens for prompt and answer together, and ids."""

    number: int
    pid: int
    context: int
    vocabulary: int


class _Engine:
    """One engine as the HTTP process sees it, from its first word to its end."""

    def __init__(self, writer: asyncio.StreamWriter, ready: Ready) -> None:
        self.writer, self.ready = writer, ready
        self.counts = {"steps": 0, "running": 0, "waiting": 0}
        self.last_beat = time.monotonic()
        self.pending: dict[str, _Pending] = {}

    @property
    def beat_age(self) -> float:
        """Seconds since it last said anything."""
        return time.monotonic() - self.last_beat

    def send(self, message: dict[str, Any]) -> None:
        if not self.writer.is_closing():
            self.writer.write(json.dumps(message).encode() + b"\n")

    def received(self, message: dict[str, Any]) -> None:
        self.last_beat = time.monotonic()
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


class Engines:
    """The HTTP process' side: all engines, the least loaded of which takes a request. Runs in the event loop."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.ready: list[_Engine] = []
        self.were_ready = False
        """One of them has been ready before."""
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        """Wait for engines to connect."""
        self._server = await asyncio.start_unix_server(self._serve, self.path, limit=MAX_LINE)
        self.path.chmod(0o600)

    async def close(self) -> None:
        if self._server:
            self._server.close()
        for engine in self.ready:
            engine.writer.close()

    @property
    def context(self) -> int | None:
        """Tokens for prompt and answer together that each of them can take; None while there is none."""
        return min((engine.ready.context for engine in self.ready), default=None)

    @property
    def beat_age(self) -> float:
        """Seconds since any of them last said anything."""
        return min((engine.beat_age for engine in self.ready), default=0.0)

    async def generate(
        self, id: str, request: dict[str, Any], deadline: float, eager: bool
    ) -> AsyncGenerator[list[Step]]:
        """The tokens of a request as they come, those of several steps together if the reader is slow.

        At `deadline` (the event loop's clock) the last step says so. `eager` False gives all at the end, at less cost.
        Leaving the iterator early frees the request's place in the engine.

        Raises:
            EngineDied: no engine is there, it left in the middle, or failed with this request (`EngineFailed`).
            EngineRefused: it cannot carry the request out.
        """
        engine = self._least_loaded()
        pending = engine.pending[id] = _Pending(eager)
        timer = asyncio.get_running_loop().call_at(deadline, pending.end)
        finished = False
        engine.send({"submit": {"id": id, **request}})
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
            del engine.pending[id]
            if not finished:
                engine.send({"cancel": id})

    def _least_loaded(self) -> _Engine:
        """One that has been silent for long gets nothing as long as another one speaks."""
        if not self.ready:
            raise EngineDied
        return min(self.ready, key=lambda engine: (engine.beat_age > SILENT_SECONDS, len(engine.pending)))

    def finish_within(self, seconds: float) -> None:
        """End what is still running after `seconds` with the answers as far as they are."""
        asyncio.get_running_loop().call_later(seconds, self._end_all)

    def _end_all(self) -> None:
        for engine in self.ready:
            for pending in engine.pending.values():
                pending.end()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """From an engine's start to its end."""
        engine = None
        try:
            while line := await reader.readline():
                message = json.loads(line)
                if engine is None:
                    engine = _Engine(writer, Ready(**message["ready"]))
                    self.ready.append(engine)
                    self.were_ready = True
                else:
                    engine.received(message)
        except ConnectionError:
            pass
        finally:
            writer.close()
            if engine:
                self.ready.remove(engine)
                for pending in engine.pending.values():
                    pending.fail(EngineDied())


class EngineLink:
    """The engine process' side: commands are taken between steps, events are sent after each."""

    def __init__(self, path: Path, gone: Callable[[], None]) -> None:
        """`gone` is called in a thread of its own as soon as the HTTP process has closed its end.

        Raises:
            LinkLost: no HTTP process is there.
        """
        self._gone = gone
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._commands: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        self._connect(path)
        threading.Thread(target=self._read, name="commands", daemon=True).start()

    def _connect(self, path: Path, patience_seconds: float = 30) -> None:
        """The HTTP process and this one start side by side; whoever is first waits."""
        give_up = time.monotonic() + patience_seconds
        while True:
            try:
                return self._socket.connect(str(path))
            except (FileNotFoundError, ConnectionRefusedError) as error:
                if time.monotonic() > give_up:
                    raise LinkLost(str(error)) from error
                time.sleep(0.02)

    def commands(self, wait: bool) -> list[dict[str, Any]]:
        """What has come since the last call; with `wait`, up to half a second is spent waiting for the first."""
        taken = []
        with contextlib.suppress(queue.Empty):
            taken.append(self._commands.get(block=wait, timeout=BEAT_SECONDS if wait else None))
            while True:
                taken.append(self._commands.get_nowait())
        return taken

    def send(self, message: dict[str, Any]) -> None:
        """
        Raises:
            LinkLost: the HTTP process is gone.
        """
        try:
            self._socket.sendall(json.dumps(message).encode() + b"\n")
        except ConnectionError as error:
            raise LinkLost(str(error)) from error

    def _read(self) -> None:
        with contextlib.suppress(OSError), self._socket.makefile("rb") as lines:
            for line in lines:
                self._commands.put(json.loads(line))
        self._gone()
