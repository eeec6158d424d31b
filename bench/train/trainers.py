"""Trainers: measures one way of training step by step, in a process of its own; prints one line of JSON.

`python -m bench.train.trainers NAME BASE ROWS BATCH WARM_UP STEPS`. ROWS is a folder of encoded rows that also hold
their text. The steps of the warm-up are left out: memory grows in them. Peak memory is of this way alone.

It knows the job's loop, transformers' Trainer and TRL's. It does not know what is compared with what.
"""

import json
import resource
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import psutil

STARTED = time.perf_counter()
LENGTH = 512
RATE = 3e-5


@dataclass
class Steps:
    """The time and the tokens of each step."""

    seconds: list[float] = field(default_factory=list)
    useful: list[int] = field(default_factory=list)
    trained: list[int] = field(default_factory=list)
    slots: list[int] = field(default_factory=list)
    phases: dict[str, float] = field(default_factory=dict)
    resting_mib: float = 0.0

    def phase(self, name: str, began: float) -> float:
        """Record the seconds of a phase that began at a time; return the time now."""
        now = time.perf_counter()
        self.phases[name] = round(now - began, 2)
        return now


def kickoff(steps: Steps, base: Path, rows: Any, batch: int, count: int) -> None:
    """Measure the job's own training loop, as in `python -m job run`."""
    began = STARTED
    from job.run import threads

    threads.configure()  # before torch, as the command line does
    from job.config.schema import TrainSection
    from job.run import machine
    from job.training.batches import epoch_steps
    from job.training.step import Learner

    host = machine.detect("auto", "auto")
    began = _rest(steps, began)
    section = TrainSection(batch_size=batch, learning_rate=RATE)
    learner = Learner(section, 0, rows, base, Path(), host, count)
    lengths, trained = learner.rows.lengths, learner.rows.trained
    began = steps.phase("load", began)
    for step in epoch_steps(lengths, batch, 0, 0)[:count]:
        learner.step(step)
        began = _note(steps, began)
        steps.useful.append(sum(lengths[row] for row in step))
        steps.trained.append(sum(trained[row] for row in step))
        steps.slots.append(max(lengths[row] for row in step) * len(step))


def article(steps: Steps, base: Path, rows: Any, batch: int, count: int) -> None:
    """Measure the article's recipe, with transformers' Trainer."""
    began = STARTED
    from transformers import Trainer  # noqa: F401 - the import is the phase

    began = _rest(steps, began)
    trainer = article_trainer(base, rows, arguments(batch, count))
    _train(steps, steps.phase("load", began), trainer)


def article_trainer(base: Path, rows: Any, options: dict[str, Any]) -> Any:
    """Make the recipe's trainer: every row padded to 512 tokens, float32, loss on all tokens."""
    from transformers import AutoModelForCausalLM, AutoTokenizer, Trainer, TrainingArguments

    tokenizer = AutoTokenizer.from_pretrained(base)

    def encode(row: dict[str, str]) -> dict[str, Any]:
        encoded = dict(tokenizer(row["prompt"] + row["completion"], padding="max_length", max_length=LENGTH))
        return {**encoded, "labels": list(encoded["input_ids"])}

    model = AutoModelForCausalLM.from_pretrained(base)
    encoded = rows.map(encode, remove_columns=rows.column_names)
    return Trainer(model=model, args=TrainingArguments(**options), train_dataset=encoded)


def trl(steps: Steps, base: Path, rows: Any, batch: int, count: int, packing: bool = False) -> None:
    """Measure TRL's SFTTrainer."""
    began = STARTED
    from trl import SFTTrainer  # noqa: F401 - the import is the phase

    began = _rest(steps, began)
    trainer = trl_trainer(base, rows, arguments(batch, count), packing)
    _train(steps, steps.phase("load", began), trainer)


def trl_trainer(base: Path, rows: Any, options: dict[str, Any], packing: bool = False) -> Any:
    """Make TRL's trainer: prompt and completion, bfloat16, rows grouped by length or packed into blocks of 512."""
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import SFTConfig, SFTTrainer

    rows_together = {"packing": True} if packing else {"train_sampling_strategy": "group_by_length"}
    return SFTTrainer(
        model=AutoModelForCausalLM.from_pretrained(base),
        args=SFTConfig(**options, **rows_together, bf16=True, gradient_checkpointing=False, max_length=LENGTH),
        train_dataset=rows.select_columns(["prompt", "completion"]),
        processing_class=AutoTokenizer.from_pretrained(base),
    )


def trl_packed(steps: Steps, base: Path, rows: Any, batch: int, count: int) -> None:
    """Measure TRL with rows packed into blocks of 512; the batch size counts blocks."""
    trl(steps, base, rows, batch, count, packing=True)


WAYS: dict[str, Callable[[Steps, Path, Any, int, int], None]] = {
    "kickoff": kickoff, "article": article, "trl": trl, "trl-packed": trl_packed,
}  # fmt: skip


def arguments(batch: int, count: int) -> dict[str, Any]:
    """Return the arguments common to both trainers: nothing is saved, logged or evaluated."""
    return {
        "output_dir": "/tmp/kickoff-bench",  # noqa: S108 - nothing is written there
        "per_device_train_batch_size": batch,
        "max_steps": count,
        "learning_rate": RATE,
        "optim": "adamw_torch_fused",
        "save_strategy": "no",
        "logging_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "use_cpu": not _gpu(),
        "dataloader_drop_last": False,
    }


def _gpu() -> bool:
    import torch

    return torch.cuda.is_available()


def _train(steps: Steps, began: float, trainer: Any) -> None:
    """Train, and record the time of each step and the tokens of each batch."""
    from transformers import TrainerCallback

    collate = trainer.data_collator
    batches: list[tuple[int, int, int]] = []

    def counting(features: Any) -> Any:
        batch = collate(features)
        slots = batch["input_ids"].numel()
        useful = int(batch["attention_mask"].sum()) if "attention_mask" in batch else slots
        batches.append((useful, int((batch["labels"] != -100).sum()), slots))
        return batch

    class Clock(TrainerCallback):  # type: ignore[misc,unused-ignore]
        def on_train_begin(self, *_: Any, **__: Any) -> None:
            self.began = steps.phase("trainer", began)

        def on_step_end(self, *_: Any, **__: Any) -> None:
            self.began = _note(steps, self.began)

    trainer.data_collator = counting
    trainer.add_callback(Clock())
    trainer.train()
    for useful, trained, slots in batches[: len(steps.seconds)]:  # it is a batch ahead
        steps.useful.append(useful)
        steps.trained.append(trained)
        steps.slots.append(slots)


def _note(steps: Steps, began: float) -> float:
    now = time.perf_counter()
    steps.seconds.append(now - began)
    return now


def _rest(steps: Steps, began: float) -> float:
    """Record the memory after the imports, before the model is loaded."""
    # not the peak so far, which a process takes over from the one that starts it
    steps.resting_mib = round(psutil.Process().memory_info().rss / 2**20, 1)
    return steps.phase("import", began)


def _peak_mib() -> float:
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1)  # KiB on Linux


def matmul_rate() -> dict[str, float]:
    """Measure the GFLOP/s of a product of two 2,048 x 2,048 matrices in float32 and bfloat16; the best of several."""
    import torch

    device = "cuda" if _gpu() else "cpu"
    rates = {}
    for dtype in (torch.float32, torch.bfloat16):
        left, right = (torch.randn(2048, 2048, device=device).to(dtype) for _ in range(2))
        times = []
        for _ in range(12):
            began = time.perf_counter()
            (left @ right).sum().item()
            times.append(time.perf_counter() - began)
        rates[str(dtype).removeprefix("torch.")] = round(2 * 2048**3 / min(times) / 1e9, 1)
    return rates


def main(name: str, base: str, rows: str, batch: str, warm_up: str, count: str) -> None:
    """Measure one way, and print the result."""
    import datasets

    steps = Steps()
    loaded = datasets.load_from_disk(rows)
    WAYS[name](steps, Path(base), loaded, int(batch), int(warm_up) + int(count))
    steps.phases["first step"] = round(steps.seconds[0], 2)
    measured: dict[str, Any] = asdict(steps)
    for key in ("seconds", "useful", "trained", "slots"):
        measured[key] = measured[key][int(warm_up) :]
    print(json.dumps({**measured, "peak_mib": _peak_mib(), "matmul_gflops": matmul_rate()}))


if __name__ == "__main__":
    main(*sys.argv[1:])
