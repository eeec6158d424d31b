"""Generate: answers questions with a model, by the chat template and the generation config of its own folder.

Prompt and answer together never exceed the context: a model with learned positions fails beyond it. A question that
leaves no room for an answer gets an empty one, which counts as not ended.

It knows models and tokenizers. It does not know expected answers.
"""

import logging
from collections import defaultdict
from collections.abc import Sequence
from itertools import chain
from typing import NamedTuple

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from job.data.prompt import Documents, prompt_ids
from job.run.machine import Machine
from job.run.out_of_memory import in_halves
from job.run.progress import Progress

log = logging.getLogger(__name__)
_CONTEXT_KEYS = ("max_position_embeddings", "n_positions", "n_ctx", "max_seq_len", "max_sequence_length", "seq_length")
"""Names of the number of positions in the configs of model families; most map theirs to the first."""


class Answer(NamedTuple):
    """A generated answer."""

    text: str
    ended: bool
    """Whether it ended with a stop token, not because it reached the longest length."""
    ids: tuple[int, ...] = ()
    """Its tokens, with the stop token if it ended."""


def context(model: PreTrainedModel) -> int | None:
    """Return the longest length of prompt and answer together, in tokens; None if the model has no limit."""
    config = model.config.get_text_config()
    values = (getattr(config, key, None) for key in _CONTEXT_KEYS)
    return next((value for value in values if isinstance(value, int) and value > 0), None)


@torch.no_grad()
def generate(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    questions: Sequence[str],
    batch_size: int,
    machine: Machine,
    title: str,
    documents: Sequence[Documents] | None = None,
) -> list[Answer]:
    """Answer each question.

    Args:
        model: A model in evaluation mode, with its generation config.
        tokenizer: Its tokenizer, which pads on the left.
        questions: The questions as in the rows, without a template.
        batch_size: Largest number of questions in one batch; halved where memory does not suffice.
        machine: Device, precision and processes, which share the work.
        title: The model's name, for the progress line.
        documents: The retrieved rows of each question; None for a model that is not grounded.

    Returns:
        The answers, in the order of the questions.
    """
    prompts = prompt_ids(list(questions), tokenizer, documents)
    stops = _stops(model)
    limits = _answer_limits(model, [len(prompt) for prompt in prompts])
    # padding would count as a token that was used, and it is often the token that ends an answer
    padded = model.generation_config.repetition_penalty in (None, 1.0)
    answers = dict.fromkeys(range(len(prompts)), Answer("", False))

    def answer(rows: list[int]) -> list[Answer]:
        batch = tokenizer.pad({"input_ids": [prompts[row] for row in rows]}, return_tensors="pt").to(model.device)
        with machine.autocast():  # around the whole generation, so that weights are cast once and not for each token
            output = model.generate(**batch, max_new_tokens=limits[rows[0]])  # type: ignore[operator]
        progress.update(len(rows) * machine.processes)
        return [_decode(ids, stops, tokenizer) for ids in output[:, batch["input_ids"].shape[1] :].tolist()]

    batches = _batches(prompts, limits, batch_size, padded)
    with Progress(f"answers of the {title} model", sum(map(len, batches)), "question") as progress:
        generated = machine.distribute(batches, lambda rows: in_halves(rows, answer, "evaluate", machine.free_cache))
    answers |= zip(chain.from_iterable(batches), chain.from_iterable(generated), strict=True)
    too_long = len(prompts) - sum(map(len, batches))
    if too_long:
        log.warning(
            f"evaluate: {too_long} questions are as long as the model's context of {context(model)} tokens and leave "
            "no room for an answer; they count as not answered"
        )
    return [answers[row] for row in range(len(prompts))]


def _answer_limits(model: PreTrainedModel, lengths: list[int]) -> list[int]:
    """Return the largest number of tokens of each answer."""
    longest, bound = model.generation_config.max_new_tokens, context(model)
    if longest is None and bound is None:
        raise ValueError(f"{model.config.name_or_path}: its generation config has no max_new_tokens")
    if bound is None:
        return [int(longest)] * len(lengths)
    return [bound - length if longest is None else min(int(longest), bound - length) for length in lengths]


def _batches(prompts: list[list[int]], limits: list[int], size: int, padded: bool) -> list[list[int]]:
    """Group prompts of similar length and the same limit: the length of an answer then depends on no other row.

    Without padding they are of equal length.
    """
    groups = defaultdict(list)
    for row in sorted(range(len(prompts)), key=lambda row: len(prompts[row])):
        if limits[row] > 0:
            groups[limits[row], 0 if padded else len(prompts[row])].append(row)
    return [rows[start : start + size] for rows in groups.values() for start in range(0, len(rows), size)]


def _stops(model: PreTrainedModel) -> set[int]:
    ends = model.generation_config.eos_token_id
    return set(ends if isinstance(ends, list) else [ends])


def _decode(ids: list[int], stops: set[int], tokenizer: PreTrainedTokenizerBase) -> Answer:
    end = next((position for position, token in enumerate(ids) if token in stops), None)
    text = str(tokenizer.decode(ids[:end], skip_special_tokens=True)).strip()
    return Answer(text, end is not None, tuple(ids if end is None else ids[: end + 1]))
