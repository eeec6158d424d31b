"""Shared: measures training on an idle machine and beside one and three busy ones: `python -m bench.train.shared`.

It measures the job's training step on a model of distilgpt2's size with random weights and rows, for each setting of
OpenMP's waiting. Each setting has a process of its own, since OpenMP reads it when it is loaded. All processes exist
from the start and are measured one after the other, in another order in each round, so that a change of the machine
affects all of them.

It knows OpenMP's settings and the learner. It does not choose among the settings: job/run/threads.py does.
"""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import typer

from bench import machine
from bench.model import ROOT
from bench.results import LOGS, RESULTS, write
from bench.serve.process import ENVIRONMENT

WAYS: dict[str, dict[str, str]] = {
    "torch's own": {},
    "passive": {"OMP_WAIT_POLICY": "passive"},
    **{f"{spins:,} spins": {"GOMP_SPINCOUNT": str(spins)} for spins in (1_000, 3_000, 10_000, 30_000, 100_000)},
}
NEIGHBOURS = (0, 1, 3)
BUSY = "while True: pass"
VOCABULARY, ROWS, BATCH = 50257, 512, 8
SHORTEST, LONGEST = 16, 50
"""Tokens in a row; 33 on average, as in bench-train."""
BASE = ROOT / ".cache" / "bench-shared" / "base"
Rates = dict[str, dict[int, list[float]]]


def prepare() -> Path:
    """Return the base's folder; the first call makes it, in a process of its own."""
    if not (BASE / "model.safetensors").exists():
        subprocess.run([sys.executable, "-m", "bench.train.shared", "make"], cwd=ROOT, check=True)  # noqa: S603 - our own
    return BASE


def make() -> None:
    """Make the base's folder."""
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    model = GPT2LMHeadModel(GPT2Config(n_layer=6, vocab_size=VOCABULARY))
    model.generation_config.pad_token_id = 0
    model.save_pretrained(BASE)


def work() -> None:
    """Read numbers of steps from standard input; train that many, and print tokens per second."""
    import datasets
    import numpy as np

    from job.config.schema import TrainSection
    from job.run import machine as job_machine
    from job.training.step import Learner

    random = np.random.default_rng(0)
    ids = [random.integers(1, VOCABULARY, size).tolist() for size in random.integers(SHORTEST, LONGEST + 1, ROWS)]
    labels = [[-100] * (len(row) // 2) + row[len(row) // 2 :] for row in ids]
    rows = datasets.Dataset.from_dict({"input_ids": ids, "labels": labels, "where": [""] * ROWS})
    host = job_machine.detect("cpu", "auto")
    learner = Learner(TrainSection(batch_size=BATCH), 0, rows, BASE, Path(), host, 10**6)
    for line in sys.stdin:
        order = random.integers(0, ROWS, (int(line), BATCH)).tolist()
        began = time.perf_counter()
        for step in order:
            learner.step(step)
        seconds = time.perf_counter() - began
        print(sum(learner.rows.lengths[row] for step in order for row in step) / seconds, flush=True)


class Worker:
    """A process that trains on request."""

    def __init__(self, way: str, environment: dict[str, str], stack: ExitStack) -> None:
        inherited = {
            key: value for key, value in os.environ.items() if key not in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")
        }
        LOGS.mkdir(parents=True, exist_ok=True)
        log = stack.enter_context((LOGS / f"shared-{way.replace(' ', '-')}.log").open("wb"))
        self._process = subprocess.Popen(  # noqa: S603 - our own command
            [sys.executable, "-m", "bench.train.shared", "work"],
            cwd=ROOT, env={**inherited, **ENVIRONMENT, **environment},
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True,
        )  # fmt: skip
        stack.callback(self._end)

    def tokens_per_second(self, steps: int) -> float:
        """Train some steps, and return the rate."""
        assert self._process.stdin is not None and self._process.stdout is not None  # noqa: S101 - both are pipes
        self._process.stdin.write(f"{steps}\n")
        self._process.stdin.flush()
        return float(self._process.stdout.readline())

    def _end(self) -> None:
        self._process.kill()
        self._process.wait()


@contextmanager
def busy(count: int) -> Iterator[None]:
    """Run `count` processes within the block that each keep one processor busy."""
    others = [subprocess.Popen([sys.executable, "-c", BUSY]) for _ in range(count)]  # noqa: S603 - our own command
    try:
        yield
    finally:
        for other in others:
            other.kill()
            other.wait()


def measure(ways: dict[str, dict[str, str]], rounds: int, steps: int) -> Rates:
    """Measure the tokens per second of each setting with each number of busy processes, round by round."""
    rates: Rates = {way: {count: [] for count in NEIGHBOURS} for way in ways}
    with ExitStack() as stack:
        workers = {way: Worker(way, environment, stack) for way, environment in ways.items()}
        for worker in workers.values():
            worker.tokens_per_second(2)  # memory grows and kernels are made in the first steps
        for number in range(rounds):
            for count in NEIGHBOURS:
                order = list(workers)
                order = order[number % len(order) :] + order[: number % len(order)]
                with busy(count):
                    for way in order:
                        rates[way][count].append(workers[way].tokens_per_second(steps))
                        print(f"{number + 1} {count} {way:14} {rates[way][count][-1]:8.1f} tok/s", file=sys.stderr)
    return rates


def summary(rates: Rates) -> list[dict[str, Any]]:
    """Compute medians, and their share of the first setting's idle speed (by default torch's own setting)."""
    quiet = median(next(iter(rates.values()))[0])
    rows = []
    for way, by_count in rates.items():
        middle = {count: median(values) for count, values in by_count.items()}
        shares = {count: round(value / quiet, 3) for count, value in middle.items()}
        rows.append({"way": way, "tokens_per_second": {k: round(v, 1) for k, v in middle.items()}, "shares": shares})
    return rows


def table(rows: list[dict[str, Any]]) -> str:
    """Format the rows as a Markdown table."""
    lines = ["| way to wait | quiet | beside one busy process | beside three |", "| --- | --- | --- | --- |"]
    for row in rows:
        cells = [f"{row['tokens_per_second'][count]} ({row['shares'][count]:.0%})" for count in NEIGHBOURS]
        lines.append(f"| {row['way']} | {' | '.join(cells)} |")
    return "\n".join(lines)


app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
app.command("make", hidden=True)(make)
app.command("work", hidden=True)(work)


@app.callback(invoke_without_command=True)
def main(
    context: typer.Context,
    rounds: Annotated[int, typer.Option(min=1, help="Times that every way is measured.")] = 5,
    steps: Annotated[int, typer.Option(min=1, help="Steps of 8 rows in each measurement.")] = 8,
    only: Annotated[list[str] | None, typer.Option(help="A way; repeatable.")] = None,
    out: Annotated[Path, typer.Option(help="Where the numbers go, as JSON.")] = RESULTS / "shared.json",
) -> None:
    """Measure every way to wait, print a table of tokens a second, and write everything to a file."""
    if context.invoked_subcommand is not None:
        return
    if unknown := set(only or []) - set(WAYS):
        raise typer.BadParameter(f"found {', '.join(sorted(unknown))}, expected some of {', '.join(WAYS)}")
    known = machine.facts()
    print(machine.lines(known), file=sys.stderr)
    prepare()
    rates = measure({way: WAYS[way] for way in WAYS if way in (only or WAYS)}, rounds, steps)
    rows = summary(rates)
    write(out, {"machine": known, "rounds": rounds, "steps": steps, "batch": BATCH, "rows": rows, "rates": rates})
    print(f"{machine.lines(known)}\n\n{table(rows)}")


if __name__ == "__main__":
    app()
