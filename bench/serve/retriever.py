"""Measures a served retriever: `python -m bench.serve.retriever FOLDER` asks it with 1, 8 and 32 clients.

The questions are those of the folder's answers.parquet. Every answer must be a published one or not known.
"""

import asyncio
import itertools
import json
import sys
import time
from pathlib import Path
from typing import Annotated, Any

import pyarrow.parquet as pq
import typer

from bench import machine
from bench.results import LOGS
from bench.serve.client import Connection
from bench.serve.load import milliseconds
from bench.serve.process import Busy, Server, free_port, stop_servers_on_exit

WARM_UP = 1.0
"""Seconds before the measured ones."""


async def closed_loop(port: int, questions: list[str], clients: int, seconds: float) -> list[float]:
    """Ask for so many seconds, one question after the other by each client; return the seconds of each answer."""
    times: list[float] = []
    asked = itertools.cycle(questions)
    opened = time.perf_counter() + WARM_UP
    closed = opened + seconds

    async def client() -> None:
        connection = Connection(port)
        while time.perf_counter() < closed:
            response = await connection.ask("POST", "/predict", {"question": next(asked)})
            if response.status != 200 or "known" not in response.json():
                raise RuntimeError(f"status {response.status}: {response.json()}")
            if opened <= response.ended < closed:
                times.append(response.seconds)
        connection.close()

    async with asyncio.TaskGroup() as group:
        for _ in range(clients):
            group.create_task(client())
    return times


async def measure(folder: Path, clients: list[int], seconds: float) -> list[dict[str, Any]]:
    """Serve the retriever and measure it with each number of clients."""
    table = pq.read_table(folder / "answers.parquet", columns=["question"])
    questions = [text for text in table.column("question").to_pylist() if text]
    port = free_port()
    command = [sys.executable, "-m", "serve", str(folder), "--port", str(port)]
    rows = []
    async with Server(command, port, "/health/ready", LOGS / "retriever.log") as server:
        for number in clients:
            busy = Busy(server.family())
            times = await closed_loop(port, questions, number, seconds)
            row = {
                "clients": number,
                "answers_per_second": round(len(times) / seconds, 1),
                "latency_p50_ms": milliseconds(times, 50),
                "latency_p95_ms": milliseconds(times, 95),
                **busy.shares(),
            }
            rows.append(row)
            print(json.dumps(row), flush=True)
    return rows


def main(
    folder: Annotated[Path, typer.Argument(help="A published retriever.")],
    seconds: Annotated[float, typer.Option(min=0.1, help="For each number of clients.")] = 8.0,
    clients: Annotated[list[int] | None, typer.Option(min=1, help="Instead of 1, 8 and 32; may be repeated.")] = None,
) -> None:
    """Serve the retriever in FOLDER and print its answers per second, a line for each number of clients."""
    stop_servers_on_exit()
    print(machine.lines(machine.facts()), file=sys.stderr)
    asyncio.run(measure(folder, clients or [1, 8, 32], seconds))


if __name__ == "__main__":
    typer.run(main)
