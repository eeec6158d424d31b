"""Generate: a model's answers to questions, with the template and the generation config of its own folder.

Prompt and answer together never exceed the context: a model with learned positions would fail on the first position
beyond it. A question that leaves no room for an answer gets an empty one, which did not end.

It knows models and tokenizers. It does not know expected answers.
"""

import logging
from collections import defaultdict
from collections.abc import Sequence
from itertools import chain
from typing import NamedTuple

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from job.data.prompt import prompt_ids
from job.run.machine import Machine
from job.run.out_of_memory import in_halves
from job.run.progress import Progress

log = logging.getLogger(__name__)
_CONTEXT_KEYS = ("max_position_embeddings", "n_positions", "n_ctx", "max_seq_len", "max_sequence_length", "seq_length")
"""What families call the number of positions; most map theirs to the first."""


class Answer(NamedTuple):
    text: str
    ended: bool
    """By itself, not because it was as long as it may be."""


def context(model: PreTrainedModel) -> int | None:
    """The longest prompt and answer together, in tokens; None where the model has no bound."""
    config = model.config.get_text_config()
    found = (getattr(config, key, None) for key in _CONTEXT_KEYS)
    return next((value for value in found if isinstance(value, int) and value > 0), None)


@torch.no_grad()
def generate(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    questions: Sequence[str],
    batch_size: int,
    machine: Machine,
    title: str,
) -> list[Answer]:
    """Answer each question.

    Args:
        tokenizer: pads on the left.
        title: of the model, for the progress line.
    """
    prompts = prompt_ids(list(questions), tokenizer)
    stops = _stops(model)
    rooms = _rooms(model, [len(prompt) for prompt in prompts])
    answers = dict.fromkeys(range(len(prompts)), Answer("", False))

    def answered(rows: list[int]) -> list[Answer]:
        batch = tokenizer.pad({"input_ids": [prompts[row] for row in rows]}, return_tensors="pt").to(model.device)
        with machine.autocast():  # around all tokens, so that weights are cast once and not for each
            output = model.generate(**batch, max_new_tokens=rooms[rows[0]])  # type: ignore[operator]
        progress.update(len(rows) * machine.processes)
        return [_answer(ids, stops, tokenizer) for ids in output[:, batch["input_ids"].shape[1] :].tolist()]

    parts = _parts(prompts, rooms, batch_size)
    with Progress(f"answers of the {title} model", sum(map(len, parts)), "question") as progress:
        given = machine.share(parts, lambda rows: in_halves(rows, answered, "evaluate", machine.free_cache))
    answers |= zip(chain.from_iterable(parts), chain.from_iterable(given), strict=True)
    without = len(prompts) - sum(map(len, parts))
    if without:
        log.warning(
            f"evaluate: {without} questions are as long as the model's context of {context(model)} tokens and leave no "
            "room for an answer; they count as not answered"
        )
    return [answers[row] for row in range(len(prompts))]


def _rooms(model: PreTrainedModel, lengths: list[int]) -> list[int]:
    """Tokens that each answer may have."""
    longest, bound = model.generation_config.max_new_tokens, context(model)
    if longest is None and bound is None:
        raise ValueError(f"{model.config.name_or_path}: its generation config has no max_new_tokens")
    if bound is None:
        return [int(longest)] * len(lengths)
    return [bound - length if longest is None else min(int(longest), bound - length) for length in lengths]


def _parts(prompts: list[list[int]], rooms: list[int], size: int) -> list[list[int]]:
    """Batches of prompts of like length that all have the same room: what a row may say depends on no other row."""
    groups = defaultdict(list)
    for row in sorted(range(len(prompts)), key=lambda row: len(prompts[row])):
        if rooms[row] > 0:
            groups[rooms[row]].append(row)
    return [rows[start : start + size] for rows in groups.values() for start in range(0, len(rows), size)]


def _stops(model: PreTrainedModel) -> set[int]:
    ends = model.generation_config.eos_token_id
    return set(ends if isinstance(ends, list) else [ends])


def _answer(ids: list[int], stops: set[int], tokenizer: PreTrainedTokenizerBase) -> Answer:
    end = next((place for place, token in enumerate(ids) if token in stops), None)
    return Answer(str(tokenizer.decode(ids[:end], skip_special_tokens=True)).strip(), end is not None)
