"""Points at which runs are broken: drawn by a seed, tried several at once, noted for the table of `make faults`."""

import hashlib
import json
import os
import random
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

SEED = int(os.environ.get("FAULTS_SEED", "7"))
PARALLEL = int(os.environ.get("FAULTS_PARALLEL", str(os.cpu_count() or 2)))
Item = TypeVar("Item")
Result = TypeVar("Result")


def at_once(work: Callable[[Item], Result], items: list[Item], workers: int = PARALLEL) -> list[Result]:
    with ThreadPoolExecutor(workers) as pool:
        return list(pool.map(work, items))


def chance(*names: object) -> random.Random:
    """The random numbers of one point, the same for the same seed whatever else runs."""
    return random.Random(f"{SEED} {names}")


def note(title: str, found: list[dict[str, Any]], points: int | None = None) -> None:
    """Add a line to the table of `make faults`, and say what went wrong."""
    for one in found:
        if not (one["survived"] and one["equal"]) or one["wrong"]:
            print(f"{title}, {one['point']}: {json.dumps(one, indent=1)}")
    if table := os.environ.get("FAULTS_TABLE"):
        with Path(table).open("a") as stream:
            stream.write(json.dumps({"title": title, "points": points or len(found), "found": found}) + "\n")


def result(run: Path) -> dict[str, Any]:
    """What a resumed run has to have in common with an unbroken one: weights, loss curve, steps, metrics, answers."""
    training, metrics = (json.loads((run / f"{name}.json").read_text()) for name in ("training", "metrics"))
    for name in ("model", "base"):
        metrics[name].pop("answer_seconds", None)  # the clock's, not the run's
    return {
        "weights": {
            file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in (run / "model").glob("*.safetensors")
        },
        "history": training["history"],
        "steps": training["steps"],
        "kept": [training["kept_step"], training["kept_loss"], training.get("stopped_early", False)],
        "metrics": metrics,
        "answers": json.loads((run / "answers.json").read_text()),
        "data": json.loads((run / "data.json").read_text()),
    }
