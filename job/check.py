"""Check: what can be known of a run before it is paid for.

It knows rendered rows and how to turn one measured step into a forecast. It does not prepare data and does not train:
the pipeline hands it what the stages gave.
"""

import logging

import datasets
from transformers import PreTrainedTokenizerBase

from job.data.rows import IGNORED

log = logging.getLogger(__name__)


def show_rows(rows: datasets.DatasetDict, tokenizer: PreTrainedTokenizerBase, count: int = 3) -> None:
    """Token lengths, and the first rows as the model sees them, the trained part between >>> and <<<."""
    lengths = sorted(len(ids) for part in rows.values() for ids in part["input_ids"])
    middle, p99 = lengths[len(lengths) // 2], lengths[int(len(lengths) * 0.99)]
    log.info(f"tokens a row: median {middle}, p99 {p99}, longest {lengths[-1]}")
    for row in rows["train"].select(range(min(count, len(rows["train"])))):
        prompt = sum(label == IGNORED for label in row["labels"])
        asked, trained = tokenizer.decode(row["input_ids"][:prompt]), tokenizer.decode(row["input_ids"][prompt:])
        log.info(f"rendered {row['where']}:\n{asked}>>>{trained}<<<")


def forecast(rows: datasets.DatasetDict, steps: int, epochs: int, pace: dict[str, float]) -> str:
    """The sentence with steps, minutes and memory, from one measured step."""
    tokens = epochs * sum(map(len, rows["train"]["input_ids"]))
    minutes = tokens * pace["seconds_per_token"] / 60
    return (
        f"ready: {len(rows['train'])} rows to train, {len(rows['test'])} to test, {steps} steps, about {minutes:.1f} "
        f"minutes of training here, {pace['peak_gib']:.1f} GiB of memory at the longest batch"
    )
