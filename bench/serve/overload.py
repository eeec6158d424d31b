"""Overload: measures Kickoff's server idle, overloaded, and for a long time: `python -m bench.serve.overload`.

Four measurements, each limited in count and time, on the loopback, with the server's defaults:
- at rest: the latency that HTTP, JSON, the tokenizer and the way to the engine add, for single requests;
- start: the time from starting the process to the first "ready", with the model in the page cache;
- overload: an open loop in which five times as many requests arrive as the server can answer;
- soak: thousands of short requests, a tenth of which are abandoned early; then memory and open files.

It knows Kickoff's interface only: /predict, its `timing`, /health/ready and /metrics.
"""

import asyncio
import itertools
import json
import random
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import typer
import uvloop

from bench import machine
from bench.model import NEW_TOKENS, prepare, questions
from bench.results import LOGS, RESULTS, write
from bench.serve.client import Connection
from bench.serve.load import ask, closed_loop, milliseconds
from bench.serve.process import Busy, Server, free_port, stop_servers_on_exit
from bench.serve.routes import Answer
from bench.serve.systems import KICKOFF

Row = dict[str, Any]
CLIENTS = 32
STARTS = 3
TIMES_TOO_MANY = 5
SETTLE_SECONDS = 5.0
"""Start of the overload that is not counted, since no answer can have arrived yet."""
MOST_OPEN = 1000
"""Most connections at once; a request beyond that is not sent, but counted."""
LEAVE = 0.1
LEAVE_WITHIN_SECONDS = 0.03
SOAK_TOKENS = 8
FIRST_REQUESTS = 1000


def _server(model: Path, name: str) -> Server:
    port = free_port()
    return Server(KICKOFF.command(model, port), port, KICKOFF.health, LOGS / f"overload-{name}.log")


async def start(model: Path) -> Row:
    """Measure the seconds from starting the process to the first "ready", several times."""
    seconds = []
    for _ in range(STARTS):
        async with _server(model, "start") as server:
            seconds.append(round(server.ready_seconds, 2))
    return {"ready_seconds": seconds}


async def at_rest(server: Server, count: int) -> Row:
    """Measure single requests for one token: the latency, and the latency without the engine's time.

    The engine's time is first_token_ms - queued_ms: from the start of its step to the token's arrival in the HTTP
    process. So the way to the engine counts as added, and the way back (a Unix socket, about 0.1 ms) does not.
    """
    connection, asking = Connection(server.port), itertools.cycle(questions())
    whole, added = [], []
    for index in range(count + 10):
        answer = await KICKOFF.route.ask(connection, next(asking), 1, False)
        if answer.wrong:
            raise RuntimeError(answer.wrong)
        timing = answer.response.json()["timing"]
        if index >= 10:
            whole.append(answer.response.seconds)
            added.append(answer.response.seconds - (timing["first_token_ms"] - timing["queued_ms"]) / 1000)
    connection.close()
    return {"requests": count, "whole_ms": _spread(whole), "added_ms": _spread(added)}


def _spread(seconds: list[float]) -> Row:
    return {f"p{percent}": milliseconds(seconds, percent) for percent in (50, 95, 99)}


@dataclass
class Flood:
    """The results of an open loop's requests."""

    began: float
    idle: list[Connection] = field(default_factory=list)
    open: int = 0
    sent: int = 0
    not_sent: int = 0
    completed: list[tuple[float, float]] = field(default_factory=list)
    """(seconds since the start, latency) of each answer."""
    rejected: list[float] = field(default_factory=list)
    others: Counter[str] = field(default_factory=Counter)

    async def one(self, port: int, question: str) -> None:
        """Send one request, on a free connection if there is one."""
        if self.open >= MOST_OPEN:
            self.not_sent += 1
            return
        self.open += 1
        self.sent += 1
        connection = self.idle.pop() if self.idle else Connection(port)
        answer = await ask(connection, KICKOFF.route, question, NEW_TOKENS, False)
        self.idle.append(connection)
        self.open -= 1
        if not isinstance(answer, Answer):
            self.others[answer] += 1
        elif answer.response.status == 429:
            self.rejected.append(answer.response.seconds)
        elif answer.wrong:
            self.others[answer.wrong] += 1
        else:
            self.completed.append((answer.response.ended - self.began, answer.response.seconds))


async def overload(server: Server, peak_seconds: float, seconds: float) -> Row:
    """Measure the peak throughput with 32 clients, then the goodput while far more requests arrive."""
    peak = await closed_loop(server.port, KICKOFF.route, questions(), NEW_TOKENS, CLIENTS, peak_seconds, stream=False)
    rate = TIMES_TOO_MANY * peak.tokens_per_second / NEW_TOKENS
    busy = Busy(server.family())
    flood, memory = Flood(time.perf_counter()), [_memory(server, 0)]
    asking = itertools.cycle(questions())
    async with asyncio.TaskGroup() as group:
        watch = group.create_task(_watch_memory(server, memory, flood.began))
        for number in range(int(rate * seconds)):
            await asyncio.sleep(max(0.0, flood.began + number / rate - time.perf_counter()))
            group.create_task(flood.one(server.port, next(asking)))
        lasted = time.perf_counter() - flood.began
        watch.cancel()
        shares = busy.shares()
    memory.append(_memory(server, time.perf_counter() - flood.began))
    for connection in flood.idle:
        connection.close()
    counted = sum(SETTLE_SECONDS <= at <= lasted for at, _ in flood.completed)
    goodput = counted * NEW_TOKENS / max(lasted - SETTLE_SECONDS, 0.001)
    return {
        "peak_tokens_per_second": peak.tokens_per_second,
        "peak_errors": peak.errors,
        "arrivals_per_second": round(rate, 1),
        "arrivals_lasted_seconds": round(lasted, 1),
        "goodput_tokens_per_second": round(goodput, 1),
        "goodput_over_peak": round(goodput / peak.tokens_per_second, 3),
        "sent": flood.sent,
        "not_sent": flood.not_sent,
        "completed": len(flood.completed),
        "completed_ms": _spread([seconds for _, seconds in flood.completed]),
        "rejected": len(flood.rejected),
        "rejected_ms": _spread(flood.rejected),
        "others": dict(flood.others),
        **shares,
        "memory": memory,
    }


async def _watch_memory(server: Server, seen: list[Row], began: float) -> None:
    while True:
        await asyncio.sleep(10)
        seen.append(_memory(server, time.perf_counter() - began))


def _memory(server: Server, at: float) -> Row:
    rss = {role: round(process.memory_info().rss / 2**20, 1) for role, process in server.by_role().items()}
    return {"at_seconds": round(at, 1), "rss_mib": rss}


async def soak(server: Server, count: int) -> Row:
    """Send short requests, some abandoned early; compare memory and open files after the first ones and at the end."""
    first = min(FIRST_REQUESTS, count)
    chance = random.Random(0)  # noqa: S311 - not a secret
    outcomes: Counter[str] = Counter()
    began = time.perf_counter()
    await _many(server.port, first, chance, outcomes)
    before = await _read_when_idle(server)
    await _many(server.port, count - first, chance, outcomes)
    after = await _read_when_idle(server)
    lasted = round(time.perf_counter() - began, 1)
    return {"requests": count, "seconds": lasted, "outcomes": dict(outcomes), "before": before, "after": after}


async def _many(port: int, count: int, chance: random.Random, outcomes: Counter[str]) -> None:
    """Send `count` requests from 32 clients."""
    left, asking = itertools.count(), itertools.cycle(questions())

    async def client() -> None:
        connection = Connection(port)
        while next(left) < count:
            leaves = chance.random() < LEAVE
            outcomes[await (_leave if leaves else _stay)(connection, next(asking), chance)] += 1
        connection.close()

    async with asyncio.TaskGroup() as group:
        for _ in range(CLIENTS):
            group.create_task(client())


async def _stay(connection: Connection, question: str, chance: random.Random) -> str:
    answer = await ask(connection, KICKOFF.route, question, SOAK_TOKENS, chance.random() < 0.5)
    return answer if isinstance(answer, str) else answer.wrong or "answered"


async def _leave(connection: Connection, question: str, chance: random.Random) -> str:
    """Ask, and close the connection after a few milliseconds, before or during the answer."""
    body = KICKOFF.route.body(question, SOAK_TOKENS, chance.random() < 0.5)
    try:
        await connection.send("POST", KICKOFF.route.path, body)
    except OSError as error:
        return f"{type(error).__name__}: {error}"
    await asyncio.sleep(chance.random() * LEAVE_WITHIN_SECONDS)
    connection.close()
    return "left"


async def _read_when_idle(server: Server, patience_seconds: float = 15) -> Row:
    """Wait until no request is running, then read memory and open files of each process."""
    connection, give_up = Connection(server.port), time.perf_counter() + patience_seconds
    running: dict[str, float] = {}
    while time.perf_counter() < give_up:
        await asyncio.sleep(1)
        running = await _running(connection)
        if not any(running.values()):
            break
    connection.close()
    await asyncio.sleep(0.5)
    files = {role: process.num_fds() for role, process in server.by_role().items()}
    return {**running, "rss_mib": _memory(server, 0)["rss_mib"], "open_files": files}


async def _running(connection: Connection) -> dict[str, float]:
    response = await connection.ask("GET", "/metrics")
    lines = b"".join(data for _, data in response.parts).decode().splitlines()
    values = dict(line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
    return {name: float(values[name]) for name in ("kickoff_running", "kickoff_waiting")}


async def _all(model: Path, requests: int, peak_seconds: float, seconds: float, soaked: int) -> Row:
    result: Row = {"start": await start(model)}
    _say(result, "start")
    async with _server(model, "load") as server:
        result["at_rest"] = await at_rest(server, requests)
        _say(result, "at_rest")
        result["overload"] = await overload(server, peak_seconds, seconds)
        _say(result, "overload")
    if soaked:
        async with _server(model, "soak") as server:
            result["soak"] = await soak(server, soaked)
            _say(result, "soak")
    return result


def _say(result: Row, name: str) -> None:
    print(f"{name}: {json.dumps(result[name], indent=1)}", file=sys.stderr)


def main(
    out: Annotated[Path, typer.Option(help="Where the numbers go, as JSON.")] = RESULTS / "overload.json",
    requests: Annotated[int, typer.Option(min=1, help="Requests without load, one after the other.")] = 200,
    peak_seconds: Annotated[float, typer.Option(min=0.1, help="Length of the search for the peak rate.")] = 20.0,
    seconds: Annotated[float, typer.Option(min=6, max=600, help="Length of the overload.")] = 60.0,
    soak: Annotated[int, typer.Option(min=0, max=10**6, help="Requests of the soak; 0 leaves it out.")] = 20000,
) -> None:
    """Measure kickoff's server at rest, at its start, overloaded, and for a long time; write everything to a file."""
    stop_servers_on_exit()
    known = machine.facts()
    print(machine.lines(known), file=sys.stderr)
    result = uvloop.run(_all(prepare(), requests, peak_seconds, seconds, soak))
    write(out, {"machine": known, **result})


if __name__ == "__main__":
    typer.run(main)
