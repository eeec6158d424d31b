"""Prepare: measures the data preparation, from a file to encoded rows: time of each stage and peak memory.

    python -m bench.prepare --dataset FILE [--rows 1000000]

If more rows are wanted than the file has, they are repeated with edits: each repetition puts another number into the
questions, so that most rows are kept, and one in ten gets a misspelt word, so that dedupe has near duplicates to find.
The tokenizer is the bench model's, with GPT-2's vocabulary size. The module runs the stages as the pipeline does; it
does not know what they do.
"""

import argparse
import json
import logging
import resource
import tempfile
import threading
import time
from pathlib import Path

import psutil
from transformers import AutoTokenizer

from bench import machine, model, results
from job.config.schema import Config, DatasetSection
from job.data import stages
from job.run import fact_files
from job.run.facts import DataFacts
from job.run.folder import RunFolder


def repeat(dataset: Path, rows: int, target: Path) -> None:
    """Write `rows` rows to `target`: those of the file, then the same with edits."""
    originals = [json.loads(line) for line in dataset.read_text().splitlines()]
    with target.open("w") as stream:
        for number in range(rows):
            row, repetition = originals[number % len(originals)], number // len(originals)
            if repetition:
                end = "?" if number % 10 else " plaese?"
                row = {
                    "question": f"{row['question'].rstrip('?')} in edition {repetition}{end}",
                    "answer": row["answer"],
                }
            stream.write(json.dumps(row) + "\n")


class MemoryWatch:
    """Records the peak of this process's memory without mapped files, which hold the rows on disk."""

    def __init__(self) -> None:
        self.peak, self._done = 0, threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)

    def __enter__(self) -> "MemoryWatch":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def _sample(self) -> None:
        while not self._done.wait(0.1):
            memory = psutil.Process().memory_info()
            self.peak = max(self.peak, memory.rss - memory.shared)


def main() -> None:
    """Measure, print the result, and write it to a file."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--dataset", type=Path, required=True)
    parser.add_argument("--rows", type=int, default=20_000)
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    tokenizer = AutoTokenizer.from_pretrained(model.prepare())
    with tempfile.TemporaryDirectory(prefix="kickoff-bench-") as scratch:
        file = Path(scratch) / "rows.jsonl"
        repeat(arguments.dataset, arguments.rows, file)
        config = Config(dataset=DatasetSection(file=str(file)), output=str(Path(scratch) / "run"))
        folder = RunFolder(config)
        before = psutil.Process().memory_info().rss
        with folder.lock(), MemoryWatch() as watch:
            folder.open({})
            started = time.perf_counter()
            stages.prepare(config, folder, lambda: tokenizer)
            seconds = time.perf_counter() - started
        facts = folder.require(DataFacts)
        result = {
            "machine": machine.facts(),
            "rows": arguments.rows,
            "seconds": round(seconds, 2),
            "stages": fact_files.read_phases(folder.path),
            "peak_gib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2),
            "peak_gib_of_a_worker": round(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20, 2),
            "peak_gib_without_files": round(watch.peak / 2**30, 2),
            "gib_before": round(before / 2**30, 2),
            "counts": {key: getattr(facts, key) for key in ("rows", "train", "test", "rejected_by_reason")},
        }
    print(machine.lines(result["machine"]))
    print(json.dumps({key: value for key, value in result.items() if key != "machine"}, indent=1))
    results.write(results.RESULTS / f"prepare-{arguments.rows}-rows.json", result)


if __name__ == "__main__":
    main()
