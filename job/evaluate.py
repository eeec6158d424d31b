"""Evaluate: what a model in a folder knows of the test rows.

It reloads a published-form folder and uses nothing but what is in it: chat template, generation config, weights.
So what is measured is what is served. It does not know whether the folder holds the tuned or the base model.
"""

import itertools
import logging
import math
import re
import string
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import datasets
import numpy as np
import numpy.typing as npt
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from job.batches import Rows
from job.config import LOWER_IS_BETTER, EvaluateSection
from job.errors import GateRefused, OutOfMemory
from job.loss import choose
from job.machine import Machine, is_out_of_memory
from job.progress import Progress
from job.prompt import prompt_ids

Metrics = dict[str, Any]
Result = TypeVar("Result")
SMALL = 100
"""Test rows below which the metrics come with intervals."""
_RESAMPLES = 2000
log = logging.getLogger(__name__)


def evaluate(
    section: EvaluateSection, folder: Path, test: datasets.Dataset, machine: Machine, title: str
) -> tuple[Metrics, list[dict[str, Any]]]:
    """Measure the model in `folder`.

    Args:
        test: {"question", "answer", "input_ids", "labels"}, at least one row.

    Returns:
        The metrics: loss (mean over the trained tokens, in nats), perplexity, token_accuracy; and of the first
        `generate_rows` questions f1, exact_match and ended (share of answers that ended by themselves). And the
        answers themselves, {"question", "expected", "answer", "f1", "ended"}. Of fewer than SMALL rows also
        "intervals", {metric: [low, high]}, 95 % by the bootstrap over rows (Efron 1979).
    """
    model, tokenizer = _load(folder, machine)
    metrics = _teacher_forced(section, model, tokenizer, test, machine)
    asked = test.select(range(min(section.generate_rows, len(test))))
    if not len(asked):
        return metrics, []
    given = _generate(model, tokenizer, asked["question"][:], section.batch_size, machine, title)
    answers = [
        {"question": question, "expected": expected, "answer": answer, "f1": f1(answer, expected), "ended": ended}
        for question, expected, (answer, ended) in zip(asked["question"], asked["answer"], given, strict=True)
    ]
    exact = [normalised(row["answer"]) == normalised(row["expected"]) for row in answers]
    metrics |= {
        "f1": _mean([row["f1"] for row in answers]),
        "exact_match": _mean(exact),
        "ended": _mean([row["ended"] for row in answers]),
        "answered_rows": len(answers),
    }
    if len(test) < SMALL:
        columns = {
            "f1": [row["f1"] for row in answers],
            "exact_match": exact,
            "ended": [row["ended"] for row in answers],
        }
        metrics["intervals"] |= {
            name: interval(np.array(values, float), np.ones(len(values))) for name, values in columns.items()
        }
    return metrics, answers


def interval(sums: npt.NDArray[np.float64], weights: npt.NDArray[np.float64]) -> list[float]:
    """The 95 % interval of sum(sums) / sum(weights), over rows drawn with replacement, by a fixed seed."""
    drawn = np.random.default_rng(0).integers(0, len(sums), (_RESAMPLES, len(sums)))
    means = sums[drawn].sum(axis=1) / weights[drawn].sum(axis=1)
    return [float(value) for value in np.quantile(means, (0.025, 0.975))]


def answer(folder: Path, questions: list[str], machine: Machine) -> list[str]:
    """The answers of the model in `folder`, decoded as its generation config says; no other process takes part."""
    model, tokenizer = _load(folder, machine)
    alone = replace(machine, rank=0, processes=1)
    return [text for text, _ in _generate(model, tokenizer, questions, len(questions), alone, "answer")]


def check_gate(section: EvaluateSection, tuned: Metrics, base: Metrics | None) -> dict[str, Any]:
    """Whether the tuned model may be published.

    Returns:
        {"metric", "passed", "value", "needed", "rule"}, as it stands in metrics.json and on the card.
    """
    metric = section.gate
    if metric == "off":
        return {"metric": "off", "passed": True, "rule": "off: published whatever the metrics say"}
    value = tuned.get(metric)
    needed = section.gate_threshold if section.gate_threshold is not None else (base or {}).get(metric)
    against = "the base model's" if section.gate_threshold is None else "the threshold"
    if value is None or needed is None:
        return {"metric": metric, "passed": False, "rule": f"{metric} could not be measured: there is no test row"}
    # the threshold itself is good enough; the base model has to be beaten
    lower = metric in LOWER_IS_BETTER
    better = value < needed if lower else value > needed
    passed = better or (section.gate_threshold is not None and value == needed)
    rule = f"{metric} must be {'below' if lower else 'above'} {against} {needed:.4g}"
    return {"metric": metric, "passed": passed, "value": value, "needed": needed, "rule": rule}


def refuse(gate: dict[str, Any], folder: Path) -> None:
    """Raise GateRefused unless the gate passed."""
    if not gate["passed"]:
        found = f"found {gate['value']:.4g}" if "value" in gate else "found nothing to compare"
        raise GateRefused(
            f"not published: {gate['rule']}, {found}. The model is kept in {folder}; more or better rows, more "
            "epochs or another learning rate may help, and evaluate.gate sets or turns off the gate"
        )


def _load(folder: Path, machine: Machine) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=machine.dtype, use_safetensors=True)
    model.to(machine.device)  # type: ignore[arg-type]
    return model.eval(), AutoTokenizer.from_pretrained(folder, padding_side="left")


@torch.no_grad()
def _teacher_forced(
    section: EvaluateSection,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    test: datasets.Dataset,
    machine: Machine,
) -> Metrics:
    """Loss and accuracy of each answer token, given the true ones before it."""
    rows = Rows(test, int(tokenizer.pad_token_id))
    order = sorted(range(len(rows)), key=rows.lengths.__getitem__)
    loss = choose(model, *rows.batch(order[-2:], machine.device))

    def measure(part: list[int]) -> list[tuple[float, ...]]:
        return [tuple(float(value) for value in loss.measure(*rows.batch(part, machine.device)))]

    # few rows are measured one by one, since their intervals need each row's share
    size = section.batch_size if len(rows) >= SMALL else 1
    given = machine.share(_parts(order, size), lambda part: _halving(part, measure))
    parts = list(itertools.chain.from_iterable(given))
    total, correct, tokens = (sum(part[field] for part in parts) for field in range(3))
    mean = total / tokens
    metrics: Metrics = {
        "loss": mean,
        "perplexity": math.exp(min(mean, 700)),  # beyond that a float overflows
        "token_accuracy": correct / tokens,
        "rows": len(rows),
    }
    if len(rows) < SMALL:
        losses, hits, weights = (np.array([part[field] for part in parts]) for field in range(3))
        loss_interval = interval(losses, weights)
        metrics["intervals"] = {
            "loss": loss_interval,
            "perplexity": [math.exp(min(value, 700)) for value in loss_interval],
            "token_accuracy": interval(hits, weights),
        }
    return metrics


@torch.no_grad()
def _generate(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    questions: list[str],
    batch_size: int,
    machine: Machine,
    title: str,
) -> list[tuple[str, bool]]:
    """Answer each question: the text, and whether it ended by itself."""
    prompts = prompt_ids(questions, tokenizer)
    ends = model.generation_config.eos_token_id
    stops = set(ends if isinstance(ends, list) else [ends])
    order = sorted(range(len(prompts)), key=lambda row: len(prompts[row]))

    def generate(rows: list[int]) -> list[tuple[str, bool]]:
        batch = tokenizer.pad({"input_ids": [prompts[row] for row in rows]}, return_tensors="pt").to(model.device)
        output = model.generate(**batch)  # type: ignore[operator]
        progress.update(len(rows) * machine.processes)
        return [_answer(ids, stops, tokenizer) for ids in output[:, batch["input_ids"].shape[1] :].tolist()]

    with Progress(f"answers of the {title} model", len(order), "question") as progress:
        given = machine.share(_parts(order, batch_size), lambda rows: _halving(rows, generate))
    answers = dict(zip(order, itertools.chain.from_iterable(given), strict=True))
    return [answers[row] for row in range(len(prompts))]


def _halving(rows: list[int], work: Callable[[list[int]], list[Result]]) -> list[Result]:
    """The results of a batch; where memory does not suffice, of its halves."""
    try:
        return work(rows)
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
    if len(rows) == 1:
        raise OutOfMemory("out of memory with a single test row; take a smaller model.base, or lower model.max_length")
    middle = len(rows) // 2
    log.warning(f"evaluate: out of memory with {len(rows)} rows, going on with {middle}")
    return _halving(rows[:middle], work) + _halving(rows[middle:], work)


def _answer(ids: list[int], stops: set[int], tokenizer: PreTrainedTokenizerBase) -> tuple[str, bool]:
    end = next((place for place, token in enumerate(ids) if token in stops), None)
    return str(tokenizer.decode(ids[:end], skip_special_tokens=True)).strip(), end is not None


def _parts(rows: list[int], size: int) -> list[list[int]]:
    return [rows[start : start + size] for start in range(0, len(rows), size)]


def f1(given: str, expected: str) -> float:
    """Overlap of words, as the SQuAD evaluation script counts it."""
    left, right = normalised(given).split(), normalised(expected).split()
    if not left or not right:
        return float(left == right)
    same = sum((Counter(left) & Counter(right)).values())
    return 2 * same / (len(left) + len(right))


def normalised(text: str) -> str:
    """SQuAD's normalisation: lower case, no punctuation, no articles, single blanks."""
    plain = "".join(character for character in text.lower() if character not in string.punctuation)
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", plain).split())


def _mean(values: list[Any]) -> float:
    return float(sum(values)) / len(values)
