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

import datasets
import numpy as np
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from job.config.schema import EvaluateSection
from job.evaluation import intervals
from job.evaluation.generate import Answer as Generated
from job.evaluation.generate import generate
from job.evaluation.intervals import Interval
from job.evaluation.metrics import exact_match, f1
from job.model.loss import choose
from job.run import out_of_memory
from job.run.facts import Answer, ModelMetrics
from job.run.machine import Machine
from job.training.batches import Rows

log = logging.getLogger(__name__)


def evaluate(
    section: EvaluateSection, seed: int, folder: Path, test: datasets.Dataset, machine: Machine, title: str
) -> tuple[ModelMetrics, list[Answer]]:
    """Measure the model in `folder`.

    Args:
        seed: of the draw of the rows to answer, where there are more than `generate_rows`.
        test: {"question", "answer", "where", "input_ids", "labels"}, at least one row.

    Returns:
        The metrics, of which one that is no finite number is None and has no interval; and the answers in the order of
        the rows.
    """
    model, tokenizer = _load(folder, machine)
    measured, known = _teacher_forced(section, model, tokenizer, test, machine)
    answers: list[Answer] = []
    asked = test.select(drawn(len(test), section.generate_rows, seed))
    if len(asked):
        given = generate(model, tokenizer, asked["question"][:], section.batch_size, machine, title)
        answers = [_answer(row, found) for row, found in zip(asked.select_columns(_TEXTS), given, strict=True)]
        measured, known_of_answers = _with_answers(measured, answers)
        known |= known_of_answers
    bounds = {name: (found.low, found.high) for name, found in known.items()}
    kinds = {name: found.kind for name, found in known.items()}
    return replace(measured, intervals=bounds, interval_kinds=kinds), answers


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


def _answer(row: dict[str, str], given: Generated) -> Answer:
    overlap = f1(given.text, row["answer"])
    return Answer(row["where"], row["question"], row["answer"], given.text, overlap, given.ended)


def _with_answers(measured: ModelMetrics, answers: list[Answer]) -> tuple[ModelMetrics, dict[str, Interval]]:
    count = len(answers)
    overlaps = np.array([row.f1 for row in answers])
    exact = sum(exact_match(row.answer, row.expected) for row in answers)
    ended = sum(row.ended for row in answers)
    metrics = replace(
        measured,
        f1=float(overlaps.sum()) / count,
        exact_match=exact / count,
        ended=ended / count,
        answered_rows=count,
    )
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
) -> tuple[ModelMetrics, dict[str, Interval]]:
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
    metrics = ModelMetrics(
        loss=_number(mean),
        perplexity=_number(_perplexity(mean)),
        token_accuracy=float(hits.sum() / weights.sum()),
        rows=len(rows),
    )
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
