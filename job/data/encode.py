"""Encode: turns the text of a row into token ids, and labels for the part that is trained.

It knows the tokenizer and its chat template. It does not know about batches or padding. Rows are padded where a batch
is made, by length, so that a padding id equal to the end-of-sequence id never hides an end that must be learned.

Prompt and answer are tokenized separately and joined. Tokenized as one text they could merge across the boundary, and
the server, which has the prompt alone, would send ids that the model was never trained on.

A text that spells a control token would become that token, so its row is rejected. The exception is an end-of-sequence
token after an answer, which many data sets have: it is removed, since every answer gets one here.
"""

from collections import Counter
from collections.abc import Callable

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from transformers import PreTrainedTokenizerBase

from job.data.control_tokens import ControlTokens
from job.data.prompt import prompt_ids
from job.data.rows import IGNORE_INDEX, transform
from job.run.row_facts import Rejection

Check = Callable[[str, str], str | None]
"""From question and answer to the reason why the row cannot be used, or None."""
_IDS = pa.list_(pa.int32())


def accept(question: str, answer: str) -> None:
    """Accept every row."""


def encode(
    rows: datasets.Dataset,
    tokenizer: PreTrainedTokenizerBase,
    max_length: int,
    counts: Counter[str] | None = None,
    check: Check = accept,
) -> tuple[datasets.Dataset, list[Rejection]]:
    """Tokenize the rows.

    Args:
        rows: {"question", "answer", "where"}; other columns pass through.
        tokenizer: with a chat template and an end-of-sequence token.
        max_length: longest row in tokens: prompt, answer and end together.
        counts: its "mended" grows by the number of answers whose end-of-sequence token was removed.
        check: checks the rows whose answer lost its end-of-sequence token again: without it the answer may be a
            placeholder, or repeat the question. Its rejections carry the stage "clean", whose rules they are.

    Returns:
        The rows kept, with "input_ids" (prompt + answer + end of sequence) and "labels" (the same, with IGNORE_INDEX
        over the prompt); and the rejected rows. A row that is too long is rejected, never cut: a cut row has no end
        to learn.
    """
    schema = rows.features.arrow_schema.remove_metadata()
    for name, type_ in {
        "reason": pa.string(),
        "stage": pa.string(),
        "mended": pa.bool_(),
        "input_ids": _IDS,
        "labels": _IDS,
    }.items():
        schema = schema.append(pa.field(name, type_))
    encoded = transform(rows, _encoder(tokenizer, max_length, schema, check), schema, "encode")
    table = encoded.with_format("arrow")
    is_rejected = pc.is_valid(table["reason"][:]).to_numpy(zero_copy_only=False)
    if counts is not None:
        counts["mended"] += int((table["mended"][:].to_numpy(zero_copy_only=False) & ~is_rejected).sum())
    columns = [name for name in ("id", "where", "stage", "reason") if name in schema.names]
    rejected = [Rejection(**row) for row in encoded.select_columns(columns).select(np.flatnonzero(is_rejected))]
    return encoded.select(np.flatnonzero(~is_rejected)).remove_columns(["reason", "stage", "mended"]), rejected


def _encoder(
    tokenizer: PreTrainedTokenizerBase, max_length: int, schema: pa.Schema, check: Check
) -> Callable[[pa.Table], pa.Table]:
    control_tokens = ControlTokens(tokenizer)
    max_characters = max_length * max(map(len, tokenizer.get_vocab()))

    def encode_batch(table: pa.Table) -> pa.Table:
        questions, originals = table["question"].to_pylist(), table["answer"].to_pylist()
        answers = [control_tokens.strip_end(answer) for answer in originals]
        repaired = [one != other for one, other in zip(originals, answers, strict=True)]
        pairs = list(zip(questions, answers, strict=True))
        reasons = [_problem(question, answer, control_tokens, max_characters) for question, answer in pairs]
        stages = ["encode"] * len(reasons)
        for number, pair in enumerate(pairs):
            if repaired[number] and reasons[number] is None and (reason := check(*pair)):
                reasons[number], stages[number] = reason, "clean"
        valid = [number for number, reason in enumerate(reasons) if reason is None]
        ids: list[list[int]] = [[] for _ in reasons]
        labels: list[list[int]] = [[] for _ in reasons]
        prompts = prompt_ids([questions[number] for number in valid], tokenizer)
        answers_ids = _answer_ids([answers[number] for number in valid], tokenizer)
        for number, prompt, answer in zip(valid, prompts, answers_ids, strict=True):
            length = len(prompt) + len(answer)
            if length > max_length:
                reasons[number] = _too_long(f"{length} tokens", max_length)
            else:
                ids[number], labels[number] = prompt + answer, [IGNORE_INDEX] * len(prompt) + answer
        columns = {"reason": pa.array(reasons, pa.string()), "input_ids": pa.array(ids, _IDS)}
        columns |= {"labels": pa.array(labels, _IDS), "answer": pa.array(answers, pa.string())}
        columns |= {"mended": pa.array(repaired), "stage": pa.array(stages, pa.string())}
        return pa.table([columns[name] if name in columns else table[name] for name in schema.names], schema=schema)

    return encode_batch


def _answer_ids(answers: list[str], tokenizer: PreTrainedTokenizerBase) -> list[list[int]]:
    ids = tokenizer(answers, add_special_tokens=False)["input_ids"] if answers else []
    return [[*answer, tokenizer.eos_token_id] for answer in ids]


def _problem(question: str, answer: str, control_tokens: ControlTokens, max_characters: int) -> str | None:
    """The reason to reject a row before tokenizing, which takes minutes for a text of a million characters."""
    if not answer:
        return "the answer is only the end-of-sequence token"
    for column, text in (("question", question), ("answer", answer)):
        if (reason := control_tokens.reason_against(column, text)) is not None:
            return reason
        if len(text) > max_characters:
            return _too_long(f"{len(text)} characters", max_characters)
    return None


def _too_long(length: str, limit: int) -> str:
    return f"too long: {length}, at most {limit} fit (model.max_length); a cut row would not teach the model to end"
