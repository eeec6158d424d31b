"""Evaluate: what a model in a folder knows of the test rows.

It reloads a published-form folder and uses nothing but what is in it: chat template, generation config, weights. The
weights are loaded in fp32, whatever they are stored in, and used under the same autocast as in training, for the loss
and for the answers: what is measured is the arithmetic that was trained, and what the server does on a CPU (products in
bf16 where the hardware computes in it, all else in fp32). On a GPU the server holds the weights in bf16 or fp16 as
well, which rounds once more.

It does not know whether the folder holds the tuned or the base model.
"""

import itertools
import logging
import math
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from job.config.schema import EvaluateSection
from job.evaluation import intervals
from job.evaluation.generate import Answer, generate
from job.evaluation.intervals import Interval
from job.evaluation.metrics import exact_match, f1
from job.model.loss import choose
from job.run import out_of_memory
from job.run.machine import Machine
from job.training.batches import Rows

Metrics = dict[str, Any]
log = logging.getLogger(__name__)


def evaluate(
    section: EvaluateSection, seed: int, folder: Path, test: datasets.Dataset, machine: Machine, title: str
) -> tuple[Metrics, list[dict[str, Any]]]:
    """Measure the model in `folder`.

    Args:
        seed: of the draw of the rows to answer, where there are more than `generate_rows`.
        test: {"question", "answer", "where", "input_ids", "labels"}, at least one row.

    Returns:
        The metrics: loss (mean over the trained tokens, in nats), perplexity, token_accuracy, rows; and of the answered
        rows f1, exact_match, ended (share of answers that ended by themselves) and answered_rows. "intervals" holds
        {metric: [low, high]}, "interval_kinds" {metric: "Wilson" or "bootstrap"}. A metric that is no number (NaN or
        infinite) is None and has no interval.
        And the answers, {"where", "question", "expected", "answer", "f1", "ended"}, in the order of the rows.
    """
    model, tokenizer = _load(folder, machine)
    metrics, known = _teacher_forced(section, model, tokenizer, test, machine)
    answers: list[dict[str, Any]] = []
    asked = test.select(drawn(len(test), section.generate_rows, seed))
    if len(asked):
        given = generate(model, tokenizer, asked["question"][:], section.batch_size, machine, title)
        answers = [_answer(row, found) for row, found in zip(asked.select_columns(_TEXTS), given, strict=True)]
        of_answers, known_of_answers = _of_answers(answers)
        metrics |= of_answers
        known |= known_of_answers
    metrics["intervals"] = {name: [found.low, found.high] for name, found in known.items()}
    metrics["interval_kinds"] = {name: found.kind for name, found in known.items()}
    return metrics, answers


def drawn(rows: int, most: int, seed: int) -> list[int]:
    """Which rows are answered, ascending: all, or `most` of them by seed, since a file may be sorted."""
    if rows <= most:
        return list(range(rows))
    return sorted(np.random.default_rng(seed).choice(rows, most, replace=False).tolist())


def answer(folder: Path, questions: list[str], machine: Machine) -> list[str]:
    """The answers of the model in `folder`, decoded as its generation config says; no other process takes part."""
    model, tokenizer = _load(folder, machine)
    alone = replace(machine, rank=0, processes=1)
    return [found.text for found in generate(model, tokenizer, questions, len(questions), alone, "answer")]


_TEXTS = ["where", "question", "answer"]


def _answer(row: dict[str, str], given: Answer) -> dict[str, Any]:
    return {
        "where": row["where"],
        "question": row["question"],
        "expected": row["answer"],
        "answer": given.text,
        "f1": f1(given.text, row["answer"]),
        "ended": given.ended,
    }


def _of_answers(answers: list[dict[str, Any]]) -> tuple[Metrics, dict[str, Interval]]:
    count = len(answers)
    overlaps = np.array([row["f1"] for row in answers])
    exact = sum(exact_match(row["answer"], row["expected"]) for row in answers)
    ended = sum(row["ended"] for row in answers)
    metrics = {
        "f1": float(overlaps.sum()) / count,
        "exact_match": exact / count,
        "ended": ended / count,
        "answered_rows": count,
    }
    known = {
        "f1": intervals.bounded(overlaps, np.ones(count)),
        "exact_match": intervals.rate(exact, count),
        "ended": intervals.rate(ended, count),
    }
    return metrics, known


def _load(folder: Path, machine: Machine) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    with out_of_memory.needed(
        "while loading a model to measure it, which needs 4 bytes a parameter",
        "what is trained is kept: run the same command again on a machine with more memory, or take a smaller "
        "model.base and another output",
    ):
        model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, use_safetensors=True)
        model.to(machine.device)  # type: ignore[arg-type]
        model.eval()
    return model, AutoTokenizer.from_pretrained(folder, padding_side="left")


@torch.no_grad()
def _teacher_forced(
    section: EvaluateSection,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    test: datasets.Dataset,
    machine: Machine,
) -> tuple[Metrics, dict[str, Interval]]:
    """Loss and accuracy of each answer token, given the true ones before it."""
    rows = Rows(test, int(tokenizer.pad_token_id))
    order = sorted(range(len(rows)), key=rows.lengths.__getitem__)
    halving = partial(out_of_memory.in_halves, stage="evaluate", free=machine.free_cache)
    (loss, *_) = halving(order[-2:], lambda part: [choose(model, *rows.batch(part, machine.device))])

    def measure(part: list[int]) -> list[tuple[float, ...]]:
        with machine.autocast():
            sums = loss.measure_rows(*rows.batch(part, machine.device))
        return list(zip(*(values.tolist() for values in sums), strict=True))

    parts = [order[start : start + section.batch_size] for start in range(0, len(order), section.batch_size)]
    given = machine.share(parts, lambda part: halving(part, measure))
    shares = np.empty((len(rows), 3))
    shares[order] = list(itertools.chain.from_iterable(given))
    losses, hits, weights = shares.T
    mean = float(losses.sum() / weights.sum())
    metrics: Metrics = {
        "loss": _number(mean),
        "perplexity": _number(_perplexity(mean)),
        "token_accuracy": float(hits.sum() / weights.sum()),
        "rows": len(rows),
    }
    known = {"token_accuracy": intervals.bounded(hits, weights)}
    of_loss = intervals.ratio(losses, weights)
    if of_loss is not None:
        between = Interval(_perplexity(of_loss.low), _perplexity(of_loss.high), of_loss.kind)
        known = {"loss": of_loss, "perplexity": between, **known}
    return metrics, known


def _perplexity(loss: float) -> float:
    return math.exp(min(loss, 700))  # beyond that a float overflows


def _number(value: float) -> float | None:
    """None for what is none: JSON has no NaN, and a gate must not compare with it."""
    if math.isfinite(value):
        return value
    log.warning(f"evaluate: the loss is {value}; train.precision=fp32 may help, or a lower train.learning_rate")
    return None
