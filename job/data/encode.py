"""Encode: from text to token ids, with the part that is trained marked by its labels.

It knows the tokenizer and its chat template. It does not know about batches or padding: rows are padded where a
batch is made, by length, so that a padding id which is also the end-of-text id never hides an end that must be
learned.

Prompt and answer are tokenized apart and joined. Tokenizing them as one text could merge characters across the
seam, and the server, which sees the prompt alone, would then send ids the model was never trained on.

A text that spells one of the tokenizer's marks would become that mark, so its row is rejected; but for the mark of
the end behind an answer, which many data sets have and which is set here anyway. That one is removed.
"""

from collections import Counter
from collections.abc import Callable

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from transformers import PreTrainedTokenizerBase

from job.data.control_tokens import Marks
from job.data.prompt import prompt_ids
from job.data.rows import IGNORED, transformed
from job.run.row_facts import Rejection

Judge = Callable[[str, str], str | None]
"""From question and answer to the reason why the row cannot be used."""
_IDS = pa.list_(pa.int32())


def _as_it_is(question: str, answer: str) -> None:
    """No row is wrong."""


def encode(
    rows: datasets.Dataset,
    tokenizer: PreTrainedTokenizerBase,
    max_length: int,
    counted: Counter[str] | None = None,
    judge: Judge = _as_it_is,
) -> tuple[datasets.Dataset, list[Rejection]]:
    """Tokenize the rows.

    Args:
        rows: {"question", "answer", "where"}; other columns pass through.
        tokenizer: with a chat template and an end-of-text token.
        max_length: longest row in tokens, prompt, answer and end together.
        counted: the answers whose end mark was removed are added to its "mended".
        judge: asked once more of the rows whose answer lost its end mark: without it the answer may be a placeholder,
            or repeat the question. What it rejects has the stage "clean", whose rules these are.

    Returns:
        The rows kept with "input_ids" and "labels": ids are prompt + answer + end of text, labels the same with IGNORED
        over the prompt. And the rejected rows. A row that is too long is rejected, never cut: a cut loses the end.
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
    encoded = transformed(rows, _encoder(tokenizer, max_length, schema, judge), schema, "encode")
    told = encoded.with_format("arrow")
    wrong = pc.is_valid(told["reason"][:]).to_numpy(zero_copy_only=False)
    if counted is not None:
        counted["mended"] += int((told["mended"][:].to_numpy(zero_copy_only=False) & ~wrong).sum())
    columns = [name for name in ("id", "where", "stage", "reason") if name in schema.names]
    rejected = [Rejection(**row) for row in encoded.select_columns(columns).select(np.flatnonzero(wrong))]
    return encoded.select(np.flatnonzero(~wrong)).remove_columns(["reason", "stage", "mended"]), rejected


def _encoder(
    tokenizer: PreTrainedTokenizerBase, max_length: int, schema: pa.Schema, judge: Judge
) -> Callable[[pa.Table], pa.Table]:
    marks = Marks(tokenizer)
    most_characters = max_length * max(map(len, tokenizer.get_vocab()))

    def change(table: pa.Table) -> pa.Table:
        questions, given = table["question"].to_pylist(), table["answer"].to_pylist()
        answers = [marks.without_end(answer) for answer in given]
        mended = [one != other for one, other in zip(given, answers, strict=True)]
        pairs = list(zip(questions, answers, strict=True))
        reasons = [_wrong(question, answer, marks, most_characters) for question, answer in pairs]
        stages = ["encode"] * len(reasons)
        for number, pair in enumerate(pairs):
            if mended[number] and reasons[number] is None and (reason := judge(*pair)):
                reasons[number], stages[number] = reason, "clean"
        fine = [number for number, reason in enumerate(reasons) if reason is None]
        ids: list[list[int]] = [[] for _ in reasons]
        labels: list[list[int]] = [[] for _ in reasons]
        asked = prompt_ids([questions[number] for number in fine], tokenizer)
        answered = _answer_ids([answers[number] for number in fine], tokenizer)
        for number, prompt, answer in zip(fine, asked, answered, strict=True):
            length = len(prompt) + len(answer)
            if length > max_length:
                reasons[number] = _too_long(f"{length} tokens", max_length)
            else:
                ids[number], labels[number] = prompt + answer, [IGNORED] * len(prompt) + answer
        made = {"reason": pa.array(reasons, pa.string()), "input_ids": pa.array(ids, _IDS)}
        made |= {"labels": pa.array(labels, _IDS), "answer": pa.array(answers, pa.string())}
        made |= {"mended": pa.array(mended), "stage": pa.array(stages, pa.string())}
        return pa.table([made[name] if name in made else table[name] for name in schema.names], schema=schema)

    return change


def _answer_ids(answers: list[str], tokenizer: PreTrainedTokenizerBase) -> list[list[int]]:
    ids = tokenizer(answers, add_special_tokens=False)["input_ids"] if answers else []
    return [[*answer, tokenizer.eos_token_id] for answer in ids]


def _wrong(question: str, answer: str, marks: Marks, most_characters: int) -> str | None:
    """Reasons that need no tokenizing: a text of a million characters would take it minutes."""
    if not answer:
        return "the answer is nothing but the mark of its end"
    for column, text in (("question", question), ("answer", answer)):
        if (mark := marks.in_text(text)) is not None:
            return f"the {column} holds {mark}, which the tokenizer would take for its own mark"
        if len(text) > most_characters:
            return _too_long(f"{len(text)} characters", most_characters)
    return None


def _too_long(found: str, most: int) -> str:
    return f"too long: {found}, {most} fit (model.max_length); a cut row would never learn to end"
