"""Check: finds out all that can be known about a run before it is paid for.

It prepares the data and the base model in a temporary folder, shows rows as the model reads them, and measures one real
training step to forecast time and memory. Nothing is trained, and only check.html is written to the run folder.
"""

import logging
import tempfile
from pathlib import Path

import datasets
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from job import prepare
from job.config.schema import Config, TrainSection
from job.data.local_files import existing_paths, local_data
from job.data.prompt import render
from job.data.stages import load_encoded, load_groups
from job.hub import client
from job.publishing import publish
from job.report import report
from job.run import disk, durable, machine
from job.run.folder import RunFolder
from job.search import held_back
from job.training import train
from job.training.train import Rehearsal

log = logging.getLogger(__name__)


def check(config: Config) -> str:
    """Check a run.

    Args:
        config: of the run.

    Returns:
        A sentence with the run's steps, minutes and memory.

    Raises:
        KickoffError: the error that would end the run, with the same exit code.
    """
    client.configure(config.publish.timeout_seconds)
    hardware = machine.detect(config.train.device, config.train.precision)
    publish.preflight(config, existing_paths(config.dataset), create=False)
    run = RunFolder(config)
    disk.require_writable(run.path)
    with tempfile.TemporaryDirectory(prefix="kickoff-check-") as scratch:
        trial = config.model_copy(update={"output": str(Path(scratch) / run.path.name)})
        folder = RunFolder(trial)
        disk.require_writable(folder.path)
        folder.open(local_data(config.dataset))
        prepare.prepare(trial, folder)
        rows = load_encoded(folder)
        section = _stand_in(config)
        if config.auto_keys():
            held_back.divide(rows["train"], load_groups(folder), config.seed, config.auto_keys()[0])
        steps = train.count_steps(section, len(rows["train"]), hardware.processes)
        log_rows(rows, AutoTokenizer.from_pretrained(folder / "base"))
        for line in disk.require_free(disk.estimate(config, folder.path)):
            log.info(f"disk: {line}")
        rehearsal = train.rehearse(section, rows["train"], folder / "base", hardware, train.objective(config))
        report.report(folder.path, config)
        durable.write(run / "check.html", (folder / "report.html").read_text(encoding="utf-8"))
        expected = forecast(rows, steps, section.epochs, rehearsal) + search_forecast(config)
        return f"{expected}; the data is shown in {run / 'check.html'}"


def search_forecast(config: Config) -> str:
    """Say what the keys that are auto add to the forecast; nothing if none is."""
    asked = config.auto_keys()
    if not asked:
        return ""
    counted = "; steps and minutes are those of one epoch" if "train.epochs" in asked else ""
    minutes = config.train.search_minutes
    return f"{counted}; before the training, the search for {' and '.join(asked)} takes up to {minutes:g} minutes"


def _stand_in(config: Config) -> TrainSection:
    """Give the section train with numbers to rehearse with: one epoch, and any rate, where they are auto."""
    values, numbers = config.train.model_dump(), {"epochs": 1, "learning_rate": 1e-5}
    found = {key: number for key, number in numbers.items() if values[key] == "auto"}
    return TrainSection.model_validate({**values, **found})


def log_rows(rows: datasets.DatasetDict, tokenizer: PreTrainedTokenizerBase, count: int = 3) -> None:
    """Log the rows' lengths in tokens, and some rows as the model reads them.

    Args:
        rows: "train" and "test", encoded.
        tokenizer: that encoded them.
        count: training rows to log, with the trained part between >>> and <<<.
    """
    lengths = sorted(len(ids) for part in rows.values() for ids in part["input_ids"])
    median, p99 = lengths[len(lengths) // 2], lengths[int(len(lengths) * 0.99)]
    log.info(f"tokens per row: median {median}, p99 {p99}, longest {lengths[-1]}")
    for row in rows["train"].select(range(min(count, len(rows["train"])))):
        rendered = render(row, tokenizer)
        log.info(f"rendered {rendered.where}:\n{rendered.prompt}>>>{rendered.answer}<<<")


def forecast(rows: datasets.DatasetDict, steps: int, epochs: int, rehearsal: Rehearsal) -> str:
    """Forecast the training from one measured step.

    Args:
        rows: "train" and "test", encoded.
        steps: optimizer steps of the whole training.
        epochs: passes over the training rows.
        rehearsal: the measured step.

    Returns:
        A sentence with steps, minutes and memory.
    """
    tokens = epochs * sum(map(len, rows["train"]["input_ids"]))
    minutes = tokens * rehearsal.seconds_per_token / 60
    return (
        f"ready: {len(rows['train'])} rows to train, {len(rows['test'])} to test, {steps} steps, about {minutes:.1f} "
        f"minutes of training here, {rehearsal.peak_gib:.1f} GiB of memory at the longest batch"
    )
