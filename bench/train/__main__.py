"""Compares the job's training with the article's recipe and with TRL's, on this machine: `python -m bench.train`.

All have the same base and rows, and the same precision where possible; each runs alone in a process. Only useful tokens
are counted: those of the rows' text, not padding. A step's arithmetic is 6 FLOP for each weight and token that its loss
needs (Kaplan et al. 2020, arXiv:2001.08361): the body for each useful token, the output layer for each token with a
loss. The model FLOP utilization (MFU) is that rate over the rate of a matrix product measured at the end of each
process.

The module runs the measurements and shows them; trainers.py measures one way of training.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import typer

from bench import machine
from bench.model import ROOT
from bench.results import LOGS, RESULTS, write
from bench.serve.process import ENVIRONMENT
from bench.train import gpt2

Row = dict[str, Any]
RUNS = (
    # way, rows (packed: blocks of 512 tokens) in a step, steps of warm-up, steps
    ("article", 8, 2, 2),
    ("trl", 8, 20, 20),
    ("trl", 64, 6, 8),
    ("trl-packed", 4, 2, 2),
    ("kickoff", 8, 20, 60),
    ("kickoff", 64, 6, 16),
)
"""Few steps where one takes ten seconds or more. The warm-up must include long rows, with which memory grows."""
ADAMW_BYTES = 16
"""Bytes of a weight, its gradient and AdamW's two moments, all in float32."""
LOGIT_BYTES = 2
"""Bytes of a logit of a trained token, in bfloat16."""


def encode_rows(dataset: Path, base: Path) -> tuple[Path, list[int]]:
    """Encode the rows as the job does, and save them with their text; return the folder and the lengths in tokens."""
    import datasets
    from transformers import AutoTokenizer

    from job.data.encode import encode

    text = dataset.read_text()
    lines = json.loads(text) if dataset.suffix == ".json" else [json.loads(line) for line in text.splitlines()]
    columns = {key: [row[key] for row in lines] for key in ("question", "answer")}
    where = [f"row {number}" for number in range(1, len(lines) + 1)]
    tokenizer = AutoTokenizer.from_pretrained(base)
    rows, _ = encode(datasets.Dataset.from_dict({**columns, "where": where}), tokenizer, 512)
    prompts = [
        tokenizer.apply_chat_template(
            [{"role": "user", "content": question}], add_generation_prompt=True, tokenize=False
        )
        for question in rows["question"]
    ]
    folder = gpt2.CACHE / "rows"
    rows = rows.add_column("prompt", prompts).add_column("completion", rows["answer"][:])
    rows.save_to_disk(folder)
    return folder, list(map(len, rows["input_ids"]))


def measure(way: str, batch: int, warm_up: int, count: int, base: Path, rows: Path) -> Row:
    """Measure one way with one batch size; return a row of the table."""
    command = [sys.executable, "-m", "bench.train.trainers", way, str(base), str(rows)]
    command += [str(batch), str(warm_up), str(count)]
    LOGS.mkdir(parents=True, exist_ok=True)
    with (LOGS / f"train-{way}-{batch}.log").open("wb") as log:
        done = subprocess.run(  # noqa: S603 - our own command
            command, cwd=ROOT, env={**os.environ, **ENVIRONMENT}, stdout=subprocess.PIPE, stderr=log, check=True
        )
    return {"way": way, "batch": batch, **summary(json.loads(done.stdout.splitlines()[-1]))}


def summary(measured: Row) -> Row:
    """Compute rates, shares and memory from what a process measured."""
    seconds, useful, trained, slots = (sum(measured[key]) for key in ("seconds", "useful", "trained", "slots"))
    best = max(measured["matmul_gflops"].values())
    flop = 6 * (gpt2.BODY * useful + gpt2.OUTPUT * min(trained, useful))
    ordered = sorted(measured["seconds"])
    needed = (gpt2.WEIGHTS * ADAMW_BYTES + gpt2.VOCABULARY * LOGIT_BYTES * max(measured["trained"])) / 2**20
    return {
        "useful_tokens_per_second": round(useful / seconds, 1),
        "trained_tokens_per_second": round(trained / seconds, 1),
        "padding": round(1 - useful / slots, 4),
        "mfu": round(flop / seconds / 1e9 / best, 3),
        "step_p50": round(median(ordered), 3),
        "step_p95": round(ordered[min(len(ordered) - 1, int(len(ordered) * 0.95))], 3),
        "steps": len(ordered),
        "tokens_per_step": round(useful / len(ordered)),
        "peak_mib": measured["peak_mib"],
        "above_rest_mib": round(measured["peak_mib"] - measured["resting_mib"], 1),
        "over_needed": round((measured["peak_mib"] - measured["resting_mib"]) / needed, 2),
        "matmul_gflops": measured["matmul_gflops"],
        "phases": measured["phases"],
    }


COLUMNS = {
    "way": "way", "batch": "rows a step", "useful_tokens_per_second": "useful tokens/s",
    "trained_tokens_per_second": "trained tokens/s", "padding": "padding", "mfu": "MFU", "step_p50": "step p50 s",
    "step_p95": "p95 s", "peak_mib": "peak MiB", "over_needed": "x needed",
}  # fmt: skip


def table(rows: list[Row]) -> str:
    """Format the rows as a Markdown table."""
    lines = [list(COLUMNS.values()), ["---"] * len(COLUMNS)]
    lines += [[str(row[name]) for name in COLUMNS] for row in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def phases(rows: list[Row]) -> str:
    """Format the seconds before the steps: imports, model and rows, the trainer's setup, the first step."""
    return "\n".join(
        f"{row['way']} {row['batch']}: {', '.join(f'{name} {seconds} s' for name, seconds in row['phases'].items())}"
        for row in rows
    )


def ratios(rows: list[Row]) -> Row:
    """Divide Kickoff's useful tokens per second by the best of the recipe and by TRL's best, of any batch size."""
    best: dict[str, float] = {}
    for row in rows:
        kind = row["way"].removesuffix("-packed")
        best[kind] = max(best.get(kind, 0.0), row["useful_tokens_per_second"])
    return {
        f"kickoff {row['batch']} / {other}": round(row["useful_tokens_per_second"] / best[other], 1)
        for row in rows if row["way"] == "kickoff"
        for other in ("article", "trl") if other in best
    }  # fmt: skip


def main(
    dataset: Annotated[Path, typer.Option(help="Questions and answers, .json or .jsonl.")],
    out: Annotated[Path, typer.Option(help="Where the numbers go, as JSON.")] = RESULTS / "train.json",
    only: Annotated[list[str] | None, typer.Option(help="A way; repeatable.")] = None,
) -> None:
    """Measure the ways one after the other, print a table and ratios, and write everything to a file."""
    ways = list(dict.fromkeys(way for way, *_ in RUNS))
    if unknown := set(only or []) - set(ways):
        raise typer.BadParameter(f"found {', '.join(sorted(unknown))}, expected some of {', '.join(ways)}")
    if not dataset.is_file():
        raise typer.BadParameter(f"found no file {dataset}, expected questions and answers as .json or .jsonl")
    known = machine.facts()
    print(machine.lines(known), file=sys.stderr)
    base = gpt2.prepare()
    folder, lengths = encode_rows(dataset, base)
    rows: list[Row] = []
    for way, batch, warm_up, count in RUNS:
        if way in (only or ways):
            rows.append(measure(way, batch, warm_up, count, base, folder))
            print(f"{way:12}{batch:>4} {rows[-1]['useful_tokens_per_second']:>8} useful tok/s", file=sys.stderr)
    compared = ratios(rows)
    result = {
        "machine": known,
        "model": "distilgpt2's size and shape, random weights, GPT-2's tokenizer",
        "dataset": {"file": dataset.name, "rows": len(lengths), "mean_tokens": round(sum(lengths) / len(lengths), 1)},
        "rows": rows,
        "ratios": compared,
    }
    write(out, result)
    print(f"{machine.lines(known)}\n\n{table(rows)}\n\n{phases(rows)}\n")
    print("\n".join(f"{name}: {ratio} x" for name, ratio in compared.items()))


if __name__ == "__main__":
    typer.run(main)
