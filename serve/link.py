"""Connects the HTTP process and the engines' processes: a Unix socket with one JSON object per line.

This is the HTTP process' end; `engine_link.py` is the engine's.

HTTP to engine: {"submit": {...}} and {"cancel": id}. Engine to HTTP: {"ready": {...}} once it can answer, then one
message per step, {"beat": {...}, "tokens": [[id, token, finish, started, logprob], ...], "failed": [[id, reason],
...]}, the
beat alone twice a second when idle, and {"refused": [id, reason]}. A retriever's engine sends "results": [[id, result,
started], ...] in place of tokens.

When either process dies, the system closes its end of the socket, so the other side knows at once: every request in
that engine fails with `EngineDied`, and an engine without an HTTP process exits. With LitServe's own queues a request
would wait for ever, and each message would pass through a third process.

It knows neither HTTP nor models.
"""

import asyncio
import json
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MAX_LINE = 2**26
"""Bytes of a message; a prompt of a million tokens needs far fewer."""
SILENT_SECONDS = 3.0
"""A few beats: an engine that is silent for this long may hang."""


class EngineRefused(Exception):
    """The engine cannot compute the request; the text says why. Other requests are not affected."""


class EngineDied(Exception):
    """The engine's process ended before the answer was complete, or is not there yet."""


class EngineFailed(EngineDied):
    """The engine gave up this request only, for lack of memory for example; the text says why."""


@dataclass(frozen=True)
class TokenEvent:
    """A generated token of a request, or its end.

    Attributes:
        token: the token's id; meaningless if `finish` is "deadline".
        finish: on the last event "stop", "length" or "deadline", else None.
        started: when the engine started the request, by `time.monotonic()`, the same clock in both processes.
        at: when the event arrived in this process, by the same clock.
        logprob: the token's log-probability, if the request asks for it.
        result: what a retriever's engine found; its only event has it, with `finish` "stop".
    """

    token: int
    finish: str | None
    started: float
    at: float
    result: Any = None
    logprob: float | None = None


class _Pending:
    """A request that an engine computes. `eager`: wake its reader at each token, not only at the end."""

    def __init__(self, eager: bool) -> None:
        self.eager = eager
        self.events: list[TokenEvent] = []
        self.error: Exception | None = None
        self.wake = asyncio.Event()

    def add(self, event: TokenEvent) -> None:
        self.events.append(event)
        if self.eager or event.finish:
            self.wake.set()

    def end(self) -> None:
        now = time.monotonic()
        self.add(TokenEvent(-1, "deadline", self.events[0].started if self.events else now, now))

    def fail(self, error: Exception) -> None:
        self.error = error
        self.wake.set()


@dataclass(frozen=True)
class Ready:
    """An engine's first message.

    Attributes:
        number, pid: of the engine, from 0, and of its process.
        context: the most tokens of prompt and answer together.
        vocabulary: the number of token ids that the model has an embedding for.
    """

    number: int
    pid: int
    context: int
    vocabulary: int


class _EngineConnection:
    """The HTTP process' end of one engine's connection, from its first message on."""

    def __init__(self, writer: asyncio.StreamWriter, ready: Ready) -> None:
        self.writer, self.ready = writer, ready
        self.counts = {"steps": 0, "running": 0, "waiting": 0}
        self.last_beat = time.monotonic()
        self.pending: dict[str, _Pending] = {}

    @property
    def beat_age(self) -> float:
        """Seconds since the engine's last message."""
        return time.monotonic() - self.last_beat

    def send(self, message: dict[str, Any]) -> None:
        if not self.writer.is_closing():
            self.writer.write(json.dumps(message).encode() + b"\n")

    def handle(self, message: dict[str, Any]) -> None:
        self.last_beat = time.monotonic()
        self.counts.update(message.get("beat", {}))
        if "refused" in message:
            id, reason = message["refused"]
            if pending := self.pending.get(id):
                pending.fail(EngineRefused(reason))
        for id, reason in message.get("failed", []):
            if pending := self.pending.get(id):
                pending.fail(EngineFailed(reason))
        for id, token, finish, started, logprob in message.get("tokens", []):
            if pending := self.pending.get(id):
                pending.add(TokenEvent(token, finish, started, self.last_beat, logprob=logprob))
        for id, result, started in message.get("results", []):
            if pending := self.pending.get(id):
                pending.add(TokenEvent(-1, "stop", started, self.last_beat, result))


class Engines:
    """The HTTP process' side: all engines; the least loaded takes a request. Runs in the event loop."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.ready: list[_EngineConnection] = []
        self.were_ready = False
        """Whether any engine has ever been ready."""
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        """Accept connections of engines."""
        self._server = await asyncio.start_unix_server(self._read_engine, self.path, limit=MAX_LINE)
        self.path.chmod(0o600)

    async def close(self) -> None:
        """Close the socket and all connections."""
        if self._server:
            self._server.close()
        for engine in self.ready:
            engine.writer.close()

    @property
    def context(self) -> int | None:
        """The most tokens of prompt and answer together that every engine can take; None while no engine is ready."""
        return min((engine.ready.context for engine in self.ready), default=None)

    @property
    def beat_age(self) -> float:
        """Seconds since the last message of any engine; 0 while none is ready."""
        return min((engine.beat_age for engine in self.ready), default=0.0)

    async def generate(
        self, id: str, request: dict[str, Any], deadline: float, eager: bool
    ) -> AsyncGenerator[list[TokenEvent]]:
        """Yield the tokens of a request as they arrive, those of several steps together if the reader is slow.

        Closing the iterator early cancels the request in the engine.

        Args:
            id: of the request, unique among those that run.
            request: the fields of the engine's `Request` without the id.
            deadline: when to stop, by the event loop's clock; the last event then has `finish` "deadline".
            eager: yield each token; False yields all of them at the end, at a lower cost.

        Raises:
            EngineDied: no engine is ready, the engine died, or it failed with this request (`EngineFailed`).
            EngineRefused: the engine cannot compute the request.
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
                events, pending.events = pending.events, []
                finished = any(event.finish in ("stop", "length") for event in events)
                yield events
        finally:
            timer.cancel()
            del engine.pending[id]
            if not finished:
                engine.send({"cancel": id})

    async def compute(self, id: str, request: dict[str, Any], deadline: float) -> TokenEvent:
        """Return the one event of a request to a retriever's engine: its result, or the deadline.

        Cancelling this cancels the request in the engine. Arguments and errors are those of `generate`.
        """
        async with aclosing(self.generate(id, request, deadline, eager=False)) as batches:
            async for events in batches:
                return next(event for event in events if event.finish)
        raise EngineDied

    def _least_loaded(self) -> _EngineConnection:
        """The engine with the fewest requests; one that has been silent for long is taken only if all have."""
        if not self.ready:
            raise EngineDied
        return min(self.ready, key=lambda engine: (engine.beat_age > SILENT_SECONDS, len(engine.pending)))

    def finish_within(self, seconds: float) -> None:
        """After `seconds`, end all running requests; each returns its partial answer."""
        asyncio.get_running_loop().call_later(seconds, self._end_all)

    def _end_all(self) -> None:
        for engine in self.ready:
            for pending in engine.pending.values():
                pending.end()

    async def _read_engine(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Handle one engine's connection from its first message to its end."""
        engine = None
        try:
            while line := await reader.readline():
                message = json.loads(line)
                if engine is None:
                    engine = _EngineConnection(writer, Ready(**message["ready"]))
                    self.ready.append(engine)
                    self.were_ready = True
                else:
                    engine.handle(message)
        except ConnectionError:
            pass
        finally:
            writer.close()
            if engine:
                self.ready.remove(engine)
                for pending in engine.pending.values():
                    pending.fail(EngineDied())
