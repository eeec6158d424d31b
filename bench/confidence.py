"""Confidence: asks a served generator questions that it should know and ones that no row answers, and counts.

`python -m bench.confidence FOLDER KNOWN UNKNOWN` takes two files of rows with a `question`. It prints the quantiles of
both confidences, how often a known question has the higher one, and the shares below some thresholds.
"""

import asyncio
import json
import sys
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from bench.results import LOGS
from bench.serve.client import Connection
from bench.serve.process import Server, free_port, stop_servers_on_exit

CLIENTS = 8
THRESHOLDS = (0.3, 0.4, 0.5, 0.6, 0.7)
QUANTILES = (0, 0.25, 0.5, 0.75, 1)


async def ask(port: int, questions: list[str]) -> list[float]:
    """Ask each question; return the confidence of each answer."""
    found = dict.fromkeys(range(len(questions)), 0.0)
    waiting = iter(enumerate(questions))

    async def client() -> None:
        connection = Connection(port)
        for number, question in waiting:
            response = await connection.ask("POST", "/predict", {"question": question})
            confidence = response.json().get("confidence")
            if response.status != 200 or confidence is None:
                raise RuntimeError(f"status {response.status}, expected an answer with a confidence: {response.json()}")
            found[number] = confidence
        connection.close()

    async with asyncio.TaskGroup() as group:
        for _ in range(CLIENTS):
            group.create_task(client())
    return list(found.values())


async def measure(folder: Path, known: list[str], unknown: list[str]) -> dict[str, Any]:
    """Serve the model, ask both kinds of questions, and compare the confidences."""
    port = free_port()
    command = [sys.executable, "-m", "serve", str(folder), "--port", str(port)]
    async with Server(command, port, "/health/ready", LOGS / "confidence.log"):
        of_known, of_unknown = np.array(await ask(port, known)), np.array(await ask(port, unknown))
    higher = np.sign(of_known[:, None] - of_unknown[None]) / 2 + 0.5
    return {
        "known": {"questions": len(known), "quantiles": np.quantile(of_known, QUANTILES).round(3).tolist()},
        "unknown": {"questions": len(unknown), "quantiles": np.quantile(of_unknown, QUANTILES).round(3).tolist()},
        "auroc": round(float(higher.mean()), 3),
        "below": {
            str(threshold): {
                "known": round(float((of_known < threshold).mean()), 3),
                "unknown": round(float((of_unknown < threshold).mean()), 3),
            }
            for threshold in THRESHOLDS
        },
    }


def main(
    folder: Annotated[Path, typer.Argument(help="A published generator with a confidence.json.")],
    known: Annotated[Path, typer.Argument(help="JSON array of rows with questions that it should know.")],
    unknown: Annotated[Path, typer.Argument(help="The same with questions that no row answers.")],
) -> None:
    """Measure a generator's confidence."""
    stop_servers_on_exit()
    asked = [[row["question"] for row in json.loads(path.read_text())] for path in (known, unknown)]
    print(json.dumps(asyncio.run(measure(folder, *asked)), indent=2))


if __name__ == "__main__":
    typer.run(main)
