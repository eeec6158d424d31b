"""Check: all that can be known of a run before it is paid for.

It prepares data and base in a scratch folder, shows rows as the model reads them, and takes one real step to forecast
time and memory. Nothing is trained, and of the run folder only check.html is written.
"""

import logging
import tempfile
from pathlib import Path

import datasets
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from job import prepare
from job.config.schema import Config
from job.data.local_files import local_data, there
from job.data.rows import IGNORED
from job.data.stages import encoded
from job.hub import client
from job.publishing import publish
from job.report import report
from job.run import disk, durable, machine
from job.run.folder import RunFolder
from job.training import train
from job.training.train import Rehearsal

log = logging.getLogger(__name__)


def check(config: Config) -> str:
    """Check a run; the sentence with its steps, minutes and memory.

    Raises:
        KickoffError: what would end the run, with the same exit code.
    """
    client.configure(config.publish.timeout_seconds)
    here = machine.detect(config.train.device, config.train.precision)
    publish.preflight(config, there(config.dataset), create=False)
    run = RunFolder(config)
    disk.require_writable(run.path)
    with tempfile.TemporaryDirectory(prefix="kickoff-check-") as scratch:
        trial = config.model_copy(update={"output": str(Path(scratch) / run.path.name)})
        folder = RunFolder(trial)
        disk.require_writable(folder.path)
        folder.open(local_data(config.dataset))
        prepare.prepare(trial, folder)
        rows = encoded(folder)
        steps = train.count_steps(config.train, len(rows["train"]), here.processes)
        show_rows(rows, AutoTokenizer.from_pretrained(folder / "base"))
        for line in disk.require_free(disk.estimate(config, folder.path)):
            log.info(f"disk: {line}")
        rehearsal = train.rehearse(config.train, rows["train"], folder / "base", here)
        report.report(folder.path, config)
        durable.write(run / "check.html", (folder / "report.html").read_text(encoding="utf-8"))
        return f"{forecast(rows, steps, config.train.epochs, rehearsal)}; the data is shown in {run / 'check.html'}"


def show_rows(rows: datasets.DatasetDict, tokenizer: PreTrainedTokenizerBase, count: int = 3) -> None:
    """Token lengths, and the first rows as the model sees them, the trained part between >>> and <<<."""
    lengths = sorted(len(ids) for part in rows.values() for ids in part["input_ids"])
    middle, p99 = lengths[len(lengths) // 2], lengths[int(len(lengths) * 0.99)]
    log.info(f"tokens a row: median {middle}, p99 {p99}, longest {lengths[-1]}")
    for row in rows["train"].select(range(min(count, len(rows["train"])))):
        prompt = sum(label == IGNORED for label in row["labels"])
        asked, trained = tokenizer.decode(row["input_ids"][:prompt]), tokenizer.decode(row["input_ids"][prompt:])
        log.info(f"rendered {row['where']}:\n{asked}>>>{trained}<<<")


def forecast(rows: datasets.DatasetDict, steps: int, epochs: int, rehearsal: Rehearsal) -> str:
    """The sentence with steps, minutes and memory, from one measured step."""
    tokens = epochs * sum(map(len, rows["train"]["input_ids"]))
    minutes = tokens * rehearsal.seconds_per_token / 60
    return (
        f"ready: {len(rows['train'])} rows to train, {len(rows['test'])} to test, {steps} steps, about {minutes:.1f} "
        f"minutes of training here, {rehearsal.peak_gib:.1f} GiB of memory at the longest batch"
    )
