"""Evaluate: measures a model in a folder on the test rows.

It reloads a folder in published form and uses only what is in it: chat template, generation config, weights. The
weights are loaded in fp32, whatever dtype they are stored in, and used under the same autocast as in training, for the
loss and for the answers. So the evaluation measures the arithmetic that was trained, which is also what the server does
on a CPU (matrix products in bf16 where the hardware supports it, everything else in fp32). On a GPU the server also
holds the weights in bf16 or fp16, which rounds once more.

It does not know whether the folder holds the tuned or the base model.
"""

import itertools
import logging
import math
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import datasets
import numpy as np
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from job.config.schema import EvaluateSection
from job.data.prompt import prompt_ids
from job.evaluation import generate as generation
from job.evaluation import grounded, intervals
from job.evaluation.answers import add_metrics, draw_rows, score
from job.evaluation.generate import generate
from job.evaluation.intervals import Interval
from job.evaluation.likelihood import mean_probabilities
from job.model.loss import Loss, choose
from job.retrieval.grounding import Grounding, load
from job.run import out_of_memory
from job.run.facts import Answer, ModelMetrics
from job.run.machine import Machine
from job.training.batches import Rows

log = logging.getLogger(__name__)


def evaluate(
    section: EvaluateSection,
    seed: int,
    folder: Path,
    test: datasets.Dataset,
    machine: Machine,
    title: str,
    unknown: Sequence[str] = (),
) -> tuple[ModelMetrics, list[Answer]]:
    """Measure the model in a folder: teacher-forced loss and accuracy, then generated answers.

    Args:
        section: The config's evaluate section.
        seed: Seed for drawing the rows to answer, if there are more than `generate_rows`.
        folder: A model in published form.
        test: Columns question, answer, where, input_ids and labels; at least one row.
        machine: Device, precision and processes, which share the work.
        title: The model's name, for the progress line.
        unknown: Questions that no row answers, for a grounded generator.

    Returns:
        The metrics, in which a value that is not finite is None and has no interval; and the answers, in the order of
        the rows.

    Raises:
        OutOfMemory: The model, or a single row, does not fit into memory.
    """
    model, tokenizer = _load(folder, machine)
    measured = Rows(test, int(tokenizer.pad_token_id))
    loss = _choose_loss(model, measured, machine)
    metrics = _teacher_forced(section, loss, measured, machine)
    selected = test.select(draw_rows(len(test), section.generate_rows, seed))
    if not len(selected):
        return metrics, []
    grounding = load(folder, machine)
    started = time.monotonic()
    questions = selected["question"][:]
    found = None if grounding is None else grounding.find(questions)
    documents = None if found is None else found.documents
    generated = generate(model, tokenizer, questions, section.batch_size, machine, title, documents)
    seconds = round(time.monotonic() - started, 3)
    prompts, written = prompt_ids(questions, tokenizer, documents), [given.ids for given in generated]
    probabilities = mean_probabilities(loss, prompts, written, tokenizer.pad_token_id, section.batch_size, machine)
    answers = _scored(selected, generated, probabilities)
    metrics = replace(add_metrics(metrics, answers), answer_seconds=seconds)
    if grounding is None or found is None:
        return metrics, answers
    answers = grounded.add_confidences(answers, found)
    wrong = _answered(model, tokenizer, unknown, section.batch_size, machine, grounding)
    return grounded.add_metrics(metrics, answers, found, wrong), answers


def _scored(
    rows: datasets.Dataset, generated: list[generation.Answer], probabilities: list[float | None]
) -> list[Answer]:
    """Compare what was generated with the expected answers."""
    expected = rows.select_columns(["where", "question", "answer"])
    return [
        replace(score(row, given.text, given.ended), probability=probability)
        for row, given, probability in zip(expected, generated, probabilities, strict=True)
    ]


def answer(folder: Path, questions: list[str], machine: Machine) -> list[str]:
    """Answer questions with the model in a folder, by its generation config, in this process alone."""
    model, tokenizer = _load(folder, machine)
    single, grounding = replace(machine, rank=0, processes=1), load(folder, machine)
    if grounding is None:
        return [answer.text for answer in generate(model, tokenizer, questions, len(questions), single, "answer")]
    found = grounding.find(questions)
    given = generate(model, tokenizer, questions, len(questions), single, "answer", found.documents)
    return [answer.text if known else found.unknown_answer for answer, known in zip(given, found.known, strict=True)]


def _answered(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    unknown: Sequence[str],
    batch_size: int,
    machine: Machine,
    grounding: Grounding,
) -> list[bool]:
    """Tell which of the unknown questions get an answer: the retriever finds a row, and the model knows it."""
    if not unknown:
        return []
    found = grounding.find(unknown)
    given = generate(model, tokenizer, unknown, batch_size, machine, "unknown questions", found.documents)
    return grounded.answered([answer.text for answer in given], found)


def _load(folder: Path, machine: Machine) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    with out_of_memory.convert_errors(
        "while loading a model to measure it, which needs 4 bytes per parameter",
        "the trained model is kept: run the same command again on a machine with more memory, or use a smaller "
        "model.base and another output",
    ):
        model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, use_safetensors=True)
        model.to(machine.device)  # type: ignore[arg-type]
        model.eval()
    return model, AutoTokenizer.from_pretrained(folder, padding_side="left")


@torch.no_grad()
def _choose_loss(model: PreTrainedModel, rows: Rows, machine: Machine) -> Loss:
    """Choose the loss by the two longest rows."""
    longest = sorted(range(len(rows)), key=rows.lengths.__getitem__)[-2:]
    (loss, *_) = out_of_memory.in_halves(
        longest, lambda part: [choose(model, *rows.batch(part, machine.device))], "evaluate", machine.free_cache
    )
    return loss


@torch.no_grad()
def _teacher_forced(section: EvaluateSection, loss: Loss, rows: Rows, machine: Machine) -> ModelMetrics:
    """Measure loss and accuracy of each answer token, given the expected tokens before it (teacher forcing)."""
    order = sorted(range(len(rows)), key=rows.lengths.__getitem__)
    halving = partial(out_of_memory.in_halves, stage="evaluate", free=machine.free_cache)

    def measure(part: list[int]) -> list[tuple[float, ...]]:
        with machine.autocast():
            sums = loss.measure_rows(*rows.batch(part, machine.device))
        return list(zip(*(values.tolist() for values in sums), strict=True))

    parts = [order[start : start + section.batch_size] for start in range(0, len(order), section.batch_size)]
    results = machine.distribute(parts, lambda part: halving(part, measure))
    sums_by_row = np.empty((len(rows), 3))
    sums_by_row[order] = list(itertools.chain.from_iterable(results))
    losses, hits, weights = sums_by_row.T
    mean = float(losses.sum() / weights.sum())
    known = {"token_accuracy": intervals.bounded_ratio(hits, weights)}
    of_loss = intervals.ratio(losses, weights)
    if of_loss is not None:
        of_perplexity = Interval(_perplexity(of_loss.low), _perplexity(of_loss.high), of_loss.kind)
        known = {"loss": of_loss, "perplexity": of_perplexity, **known}
    return ModelMetrics(
        loss=_finite(mean),
        perplexity=_finite(_perplexity(mean)),
        token_accuracy=float(hits.sum() / weights.sum()),
        rows=len(rows),
        intervals={name: (interval.low, interval.high) for name, interval in known.items()},
        interval_kinds={name: interval.kind for name, interval in known.items()},
    )


def _perplexity(loss: float) -> float:
    return math.exp(min(loss, 700))  # exp(710) overflows a float


def _finite(value: float) -> float | None:
    """Return None for NaN and infinity: JSON has neither, and the gate must not compare with them."""
    if math.isfinite(value):
        return value
    log.warning(f"evaluate: the loss is {value}; train.precision=fp32 may help, or a lower train.learning_rate")
    return None
