"""Compares Kickoff's server with its peers, on this machine, with the same model, in one run: `python -m bench.serve`.

One system after the other is started, asked by 1, 8 and 32 clients, streamed and not, and stopped. The engines without
HTTP are the upper bound. Every answer must have exactly 32 tokens; others count as errors with no tokens. The processor
time of other processes stands beside each number ("others") and should be near zero.

The module runs the measurements and shows them; load.py makes the load, and systems.py names the systems.
"""

import json
import os
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
import uvloop

from bench import machine
from bench.model import NEW_TOKENS, ROOT, prepare, questions
from bench.results import LOGS, RESULTS, write
from bench.serve.load import closed_loop
from bench.serve.process import ENVIRONMENT, Busy, Server, free_port, stop_servers_on_exit
from bench.serve.systems import ENGINES, KICKOFF, PEERS, SERVERS, System

Row = dict[str, Any]
QUIET = 5.0
"""Percent of the processors; if other processes use more, the numbers are not reliable."""


async def measure_server(system: System, model: Path, clients: list[int], seconds: float) -> list[Row]:
    """Measure all cells of one server."""
    port = free_port()
    rows: list[Row] = []
    log = LOGS / f"{system.name}.log"
    async with Server(system.command(model, port), port, system.health, log) as server:
        for number in clients:
            for stream in (False, True) if system.streams else (False,):
                busy = Busy(server.family())
                cell = await closed_loop(
                    port, system.route, questions(), NEW_TOKENS, number, seconds, stream, busy.open
                )
                rows.append({"system": system.name, **asdict(cell), **busy.shares()})
                _say(rows[-1])
    return rows


def measure_engine(kind: str, model: Path, clients: list[int], seconds: float) -> tuple[str, list[Row]]:
    """Measure all cells of one engine; return its dtype and the cells."""
    command = [sys.executable, "-m", "bench.serve.engine", kind, str(model), str(seconds), *map(str, clients)]
    LOGS.mkdir(parents=True, exist_ok=True)
    with (LOGS / f"{kind}.log").open("wb") as log:
        done = subprocess.run(  # noqa: S603 - our own command
            command, cwd=ROOT, env={**os.environ, **ENVIRONMENT}, stdout=subprocess.PIPE, stderr=log, check=True
        )
    result = json.loads(done.stdout)
    rows = [{"system": kind, "streamed": False, **cell} for cell in result["cells"]]
    for row in rows:
        _say(row)
    return result["dtype"], rows


def _say(row: Row) -> None:
    errors = f"  errors: {row['errors']}" if row["errors"] else ""
    how = "streamed" if row["streamed"] else "whole"
    print(f"{row['system']:24}{row['clients']:>3} {how:8} {row['tokens_per_second']:>8} tok/s{errors}", file=sys.stderr)


COLUMNS = {
    "system": "system",
    "clients": "clients",
    "streamed": "streamed",
    "tokens_per_second": "tokens/s",
    "first_token_p50": "first token p50 ms",
    "first_token_p95": "p95 ms",
    "per_token_p50": "a token p50 ms",
    "latency_p50": "request p50 ms",
    "latency_p95": "p95 ms",
    "cpu_client": "client %",
    "cpu_others": "others %",
    "errors": "errors",
}


def table(rows: list[Row]) -> str:
    """Format the rows as a Markdown table."""
    lines = [list(COLUMNS.values()), ["---"] * len(COLUMNS)]
    lines += [[_cell(row.get(name)) for name in COLUMNS] for row in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, dict):
        return str(sum(value.values()))
    return "" if value is None else str(value)


def ratios(rows: list[Row]) -> list[Row]:
    """Divide Kickoff's tokens/s by the best peer's, streamed and not, and by the engines'."""
    ratios_: list[Row] = []
    for row in (row for row in rows if row["system"] == KICKOFF.name):
        beside = [other for other in rows if other["clients"] == row["clients"]]
        peers = [other for other in beside if other["system"] in PEERS and other["streamed"] == row["streamed"]]
        best = max(peers, key=lambda other: float(other["tokens_per_second"]), default=None)
        ratio: Row = {"clients": row["clients"], "streamed": row["streamed"]}
        if best:
            ratio |= {"best_peer": best["system"], "over_best_peer": _over(row, best)}
        for engine in (other for other in beside if other["system"] in ENGINES):
            ratio[f"over_{engine['system']}"] = _over(row, engine)
        ratios_.append(ratio)
    return ratios_


def _over(row: Row, other: Row) -> float | None:
    below = other["tokens_per_second"]
    return round(row["tokens_per_second"] / below, 2) if below else None


def _ratio_line(ratio: Row) -> str:
    parts = [f"{ratio[key]} x {key.removeprefix('over_')}" for key in ratio if key.startswith("over_")]
    best = f" (best peer: {ratio['best_peer']})" if "best_peer" in ratio else ""
    how = "streamed" if ratio["streamed"] else "whole"
    return f"kickoff, {ratio['clients']} clients, {how}: {', '.join(parts).replace('_', ' ')}{best}"


def main(
    out: Annotated[Path, typer.Option(help="Where the numbers go, as JSON.")] = RESULTS / "serve.json",
    only: Annotated[list[str] | None, typer.Option(help="A system's name; repeatable.")] = None,
    seconds: Annotated[
        float, typer.Option(min=0.1, help="Shortest length of a window, in seconds; it has at least 3 rounds.")
    ] = 8.0,
    clients: Annotated[list[int] | None, typer.Option(min=1, help="Instead of 1, 8 and 32; repeatable.")] = None,
) -> None:
    """Measure the systems one after the other, print a table and ratios, and write everything to a file."""
    names = [*ENGINES, *(system.name for system in SERVERS)]
    if unknown := set(only or []) - set(names):
        raise typer.BadParameter(f"found {', '.join(sorted(unknown))}, expected some of {', '.join(names)}")
    stop_servers_on_exit()
    model, numbers, wanted = prepare(), clients or [1, 8, 32], only or names
    known = machine.facts()
    print(machine.lines(known), file=sys.stderr)
    rows: list[Row] = []
    computes: dict[str, str] = {}
    for kind in (kind for kind in ENGINES if kind in wanted):
        computes[kind], measured = measure_engine(kind, model, numbers, seconds)
        rows += measured
    for system in (system for system in SERVERS if system.name in wanted):
        rows += uvloop.run(measure_server(system, model, numbers, seconds))
    compared = ratios(rows)
    result: Row = {
        "machine": known,
        "model": "distilgpt2's size and shape, random weights",
        "new_tokens": NEW_TOKENS,
        "systems": {name: what for name, what in _descriptions().items() if name in wanted},
        "computes_in": computes,
        "rows": rows,
        "ratios": compared,
    }
    write(out, result)
    print(f"{machine.lines(known)}\n{computes}\n\n{table(rows)}\n")
    print("\n".join(_ratio_line(ratio) for ratio in compared) + _warning(rows))


def _warning(rows: list[Row]) -> str:
    """Return a warning if other processes make the numbers unreliable."""
    most = max((row.get("cpu_others", 0.0) for row in rows), default=0.0)
    if most <= QUIET:
        return ""
    return f"\nwarning: other processes took up to {most} % of the processors; measure again on a quiet machine"


def _descriptions() -> dict[str, str]:
    return {**ENGINES, **{system.name: system.what for system in SERVERS}}


if __name__ == "__main__":
    typer.run(main)
