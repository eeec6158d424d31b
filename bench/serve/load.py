"""Load: a closed loop of N clients, each of which asks one question after the other.

The measured window opens with the N-th answer (the first round is warm-up) and closes with an answer whose number is a
multiple of N. Clients continue until it closes. So the load is constant, and requests that started before the window
balance those that end after it, also if N answers arrive at once.

It knows answers and times. It does not know which server it asks.
"""

import asyncio
import itertools
import math
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from bench.serve.client import Connection
from bench.serve.routes import TIMEOUT_SECONDS, Answer, Route

ROUNDS = 3
MOST_SECONDS = 60.0
"""After this time a window closes with fewer rounds."""


@dataclass(frozen=True)
class Cell:
    """The measurements of one window. Times in milliseconds; those of tokens only if streamed."""

    clients: int
    streamed: bool
    requests: int
    seconds: float
    tokens_per_second: float
    latency_p50: float | None
    latency_p95: float | None
    first_token_p50: float | None
    first_token_p95: float | None
    per_token_p50: float | None
    errors: dict[str, int]


@dataclass
class Window:
    """Decides for each answer whether it is measured."""

    clients: int
    seconds: float
    count: int = 0
    opened: float = math.inf
    closed: float | None = None
    inside: list[int] = field(default_factory=list)

    def add(self, tokens: int) -> bool:
        """Count an answer of so many tokens; return whether it is inside the window."""
        if self.closed is not None:
            return False
        self.count += 1
        now = time.perf_counter()
        if self.count <= self.clients:
            if self.count == self.clients:
                self.opened = now
            return False
        self.inside.append(tokens)
        open_for = now - self.opened
        enough = len(self.inside) >= ROUNDS * self.clients and open_for >= self.seconds
        if len(self.inside) % self.clients == 0 and (enough or open_for >= MOST_SECONDS):
            self.closed = now
        return True

    @property
    def duration(self) -> float:
        """Seconds that the window has been open."""
        return (time.perf_counter() if self.closed is None else self.closed) - self.opened

    @property
    def tokens_per_second(self) -> float:
        """Tokens of the answers inside, per second."""
        return sum(self.inside) / self.duration


async def closed_loop(
    port: int,
    route: Route,
    questions: Sequence[str],
    tokens: int,
    clients: int,
    seconds: float,
    stream: bool,
    opened: Callable[[], None] = lambda: None,
) -> Cell:
    """Ask until the window closes; `opened` is called when it opens."""
    window = Window(clients, seconds)
    answers: list[Answer] = []
    errors: Counter[str] = Counter()
    asked = itertools.count()

    async def client() -> None:
        connection = Connection(port)
        while window.closed is None:
            question = questions[next(asked) % len(questions)]
            answer = await ask(connection, route, question, tokens, stream)
            right = isinstance(answer, Answer) and answer.wrong is None
            if window.add(tokens if right else 0):
                if isinstance(answer, Answer) and right:
                    answers.append(answer)
                else:
                    errors[str(answer.wrong if isinstance(answer, Answer) else answer)] += 1
            elif window.count == clients:
                opened()
            if not right:
                await asyncio.sleep(0.1)
        connection.close()

    async with asyncio.TaskGroup() as group:
        for _ in range(clients):
            group.create_task(client())
    return _cell(window, answers, errors, stream)


async def ask(connection: Connection, route: Route, question: str, tokens: int, stream: bool) -> Answer | str:
    """Ask one question; return the answer, or why there is none."""
    try:
        async with asyncio.timeout(TIMEOUT_SECONDS):
            return await route.ask(connection, question, tokens, stream)
    except (OSError, EOFError, ValueError, TimeoutError) as error:
        connection.close()
        return f"{type(error).__name__}: {error}"


def _cell(window: Window, answers: list[Answer], errors: Counter[str], stream: bool) -> Cell:
    latency = [answer.response.seconds for answer in answers]
    first = [answer.first_token for answer in answers if answer.first_token is not None]
    each = [answer.per_token for answer in answers if answer.per_token is not None]
    return Cell(
        clients=window.clients,
        streamed=stream,
        requests=len(window.inside),
        seconds=round(window.duration, 2),
        tokens_per_second=round(window.tokens_per_second, 1),
        latency_p50=milliseconds(latency, 50),
        latency_p95=milliseconds(latency, 95),
        first_token_p50=milliseconds(first, 50),
        first_token_p95=milliseconds(first, 95),
        per_token_p50=milliseconds(each, 50),
        errors=dict(errors),
    )


def milliseconds(seconds: Sequence[float], percent: float) -> float | None:
    """Return a percentile (nearest rank) of times in seconds, in milliseconds; None if there are no times."""
    if not seconds:
        return None
    return round(sorted(seconds)[max(0, math.ceil(percent / 100 * len(seconds)) - 1)] * 1000, 2)
