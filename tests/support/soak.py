"""A server under clients that behave and clients that do not, for as long as it is told: what became of it all.

Four clients ask and look at every answer. Beside them others leave in the middle, reset their connection, send half a
request, half-close, do not read, send garbage, bombs and bodies too large; and the engine is killed, and runs out of
memory, a few times.

It knows HTTP and the rows that the model knows by heart. It does not know what counts as good; `test_soak.py` does.
"""

import gzip
import itertools
import json
import os
import random
import signal
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass, field
from typing import Any

import httpx2
from served import Served

Rows = list[dict[str, str]]
ASKERS = 4
TROUBLED = 3
BETWEEN_FAULTS_SECONDS = 110.0
"""Between a killed engine and one without memory; the server leaves at the fourth death in five minutes."""
TURNED_AWAY = (429, 503)
NO_MEMORY = "engine: out of memory; "
"""How the engine's line about it begins."""
OPTIONS = ("--timeout", "10", "--read-seconds", "2", "--max-running", "16", "--max-waiting", "16")


@dataclass
class Soak:
    """What has happened so far."""

    server: Served
    rows: Rows
    seconds: float
    breaking: bool
    """Whether the engine is broken, too."""
    outcomes: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    kinds: Iterator[Callable[..., Any]] = field(default_factory=lambda: itertools.cycle(TROUBLES))
    over: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        """All of it; every client has ended afterwards, and the server still runs."""
        seeds = range(ASKERS + TROUBLED)
        work: list[Callable[[random.Random], None]] = [self._ask] * ASKERS + [self._trouble] * TROUBLED
        threads = [
            threading.Thread(target=self._until_over, args=(one, random.Random(seed)))
            for one, seed in zip(work, seeds, strict=True)
        ]
        if self.breaking:
            threads.append(threading.Thread(target=self._break_the_engine))
        for thread in threads:
            thread.start()
        self.over.wait(self.seconds)
        self.over.set()
        for thread in threads:
            thread.join()

    def _until_over(self, work: Callable[[random.Random], None], chance: random.Random) -> None:
        while not self.over.is_set():
            try:
                work(chance)
            except Exception as error:
                self.wrong.append(f"{work.__name__}: {type(error).__name__}: {error}")

    def _ask(self, chance: random.Random) -> None:
        """A few requests of one client."""
        with httpx2.Client(base_url=self.server.url, timeout=60) as client:
            for _ in range(20):
                if self.over.is_set():
                    return
                self._judge(*question(client, chance, self.rows))

    def _judge(self, kind: str, status: int, got: str | None, expected: str) -> None:
        """`got` None: the end of the answer said that it is not complete."""
        if status in TURNED_AWAY:
            self.outcomes[f"{kind} {status}"] += 1
            time.sleep(0.2)
        elif status == 200 and got in (None, expected):
            self.outcomes[f"{kind} {'unfinished' if got is None else 'right'}"] += 1
        else:
            self.wrong.append(f"{kind}: {status} {got!r}, expected {expected!r}")

    def _trouble(self, chance: random.Random) -> None:
        kind = next(self.kinds)
        with closing(socket.create_connection(("127.0.0.1", self.server.port), timeout=30)) as connection:
            answer = kind(connection, chance, self.rows)
        name = kind.__name__
        if name == "half_close":
            row, received = answer
            status = int(received.split()[1])
            body = json.loads(received.partition(b"\r\n\r\n")[2])
            self._judge(name, status, body.get("answer"), row["answer"])
        else:
            self.outcomes[name] += 1
            time.sleep(0.1)

    def _break_the_engine(self) -> None:
        pause = min(BETWEEN_FAULTS_SECONDS, self.seconds / 3)
        ways = (("killed engine", signal.SIGKILL), ("no memory", signal.SIGUSR1))
        for index in range(int(self.seconds / pause) - 1):
            name, sent = ways[index % 2]
            self.over.wait(pause if index else pause / 2)
            while not self.over.is_set() and httpx2.get(f"{self.server.url}/health", timeout=60).status_code != 200:
                time.sleep(0.1)
            if self.over.is_set():
                return
            engine, said = self.server.children()["engine"].pid, self.server.output().count(NO_MEMORY)
            os.kill(engine, sent)
            if sent == signal.SIGUSR1:
                self._ran_out(engine, said)
            self.outcomes[name] += 1

    def _ran_out(self, engine: int, said: int) -> None:
        """The log says it once more, and then the same engine answers. It is asked here too: all others may be done."""
        give_up, code, out = time.monotonic() + 60, 0, False
        with httpx2.Client(base_url=self.server.url, timeout=60) as client:
            while not (out and code == 200) and time.monotonic() < give_up:
                out = self.server.output().count(NO_MEMORY) > said
                kind, code, got, expected = question(client, random.Random(0), self.rows)
                self._judge(f"{kind} about memory", code, got, expected)
        now = self.server.children()["engine"].pid
        if not out or code != 200 or now != engine:
            self.wrong.append(f"no memory: {out=}, then {code}, by the engine {now} where {engine} was")


def question(client: httpx2.Client, chance: random.Random, rows: Rows) -> tuple[str, int, str | None, str]:
    """Ask one of `rows` in one of four ways: the way, the status, the answer, and what it should be."""
    row = chance.choice(rows)
    kind = chance.choice(("predict", "predict streamed", "chat", "chat streamed"))
    stream = kind.endswith("streamed")
    if kind.startswith("predict"):
        response = client.post("/predict", json={"question": row["question"], "stream": stream})
    else:
        messages = [{"role": "user", "content": row["question"]}]
        response = client.post("/v1/chat/completions", json={"messages": messages, "stream": stream})
    got = None if response.status_code != 200 else (streamed if stream else whole)(response)
    return kind, response.status_code, got, row["answer"]


def whole(response: httpx2.Response) -> str | None:
    body = response.json()
    text = body["answer"] if "answer" in body else body["choices"][0]["message"]["content"]
    return None if body["deadline_reached"] else str(text)


def streamed(response: httpx2.Response) -> str | None:
    """The pieces put together, if the end of the stream says that they are all."""
    events = [line.removeprefix("data: ") for line in response.text.splitlines() if line.startswith("data: ")]
    last = json.loads(events[-1]) if events[-1] != "[DONE]" else {}
    if "error" in last or last.get("deadline_reached"):
        return None
    pieces = [json.loads(event) for event in events[:-1]]
    if "answer" in last:
        return "".join(piece["text"] for piece in pieces) if last["finish_reason"] == "stop" else None
    choices = [piece["choices"][0] for piece in pieces]
    text = "".join(choice["delta"].get("content") or "" for choice in choices)
    return text if choices[-1]["finish_reason"] == "stop" else None


def sent(path: str, body: dict[str, Any], **headers: str) -> bytes:
    content = json.dumps(body).encode()
    lines = [f"POST {path} HTTP/1.1", "Host: here", "Content-Type: application/json"]
    lines += [f"Content-Length: {len(content)}", *(f"{name.replace('_', '-')}: {at}" for name, at in headers.items())]
    return "\r\n".join([*lines, "", ""]).encode() + content


def received(connection: socket.socket) -> bytes:
    data = b""
    with suppress(ConnectionError):
        while piece := connection.recv(2**16):
            data += piece
    return data


def leave(connection: socket.socket, chance: random.Random, rows: Rows) -> None:
    connection.sendall(sent("/predict", {"question": chance.choice(rows)["question"], "stream": chance.random() < 0.5}))
    time.sleep(chance.random() * 0.1)


def reset(connection: socket.socket, chance: random.Random, rows: Rows) -> None:
    leave(connection, chance, rows)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def half_sent(connection: socket.socket, chance: random.Random, rows: Rows) -> None:
    whole = sent("/predict", {"question": rows[0]["question"]})
    connection.sendall(whole[: chance.randrange(1, len(whole))])
    received(connection)


def half_close(connection: socket.socket, chance: random.Random, rows: Rows) -> Any:
    row = chance.choice(rows)
    connection.sendall(sent("/predict", {"question": row["question"]}))
    connection.shutdown(socket.SHUT_WR)
    return row, received(connection)


def do_not_read(connection: socket.socket, chance: random.Random, rows: Rows) -> None:
    """More answers than the system buffers, one after the other: the one at which it is full holds its eight places."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    messages = [{"role": "user", "content": chance.choice(rows)["question"]}]
    body = {"messages": messages, "n": 8, "stream": True}
    with suppress(ConnectionError):
        connection.sendall(sent("/v1/chat/completions", body, X_Request_Timeout="1") * 30)
        time.sleep(chance.random() * 10)


def garbage(connection: socket.socket, chance: random.Random, _: Rows) -> None:
    with suppress(ConnectionError):
        connection.sendall(chance.randbytes(1000))
    received(connection)


def bomb(connection: socket.socket, chance: random.Random, _: Rows) -> None:
    packed = gzip.compress(b" " * 2**24)
    lines = "POST /predict HTTP/1.1\r\nHost: here\r\nConnection: close\r\nContent-Encoding: gzip\r\n"
    connection.sendall(f"{lines}Content-Length: {len(packed)}\r\n\r\n".encode() + packed)
    received(connection)


def too_large(connection: socket.socket, chance: random.Random, _: Rows) -> None:
    with suppress(ConnectionError):
        connection.sendall(sent("/predict", {"question": "a" * 2**21}))
        connection.shutdown(socket.SHUT_WR)
    received(connection)


TROUBLES = (leave, leave, reset, half_sent, half_close, half_close, do_not_read, garbage, bomb, too_large)
