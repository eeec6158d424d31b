"""Pairs: turns question and answer of a row into the tokens that an encoder reads.

The encoded row has the columns of a generator's: `input_ids` holds the question's tokens and the answer's one after the
other, and `labels` ignores the question's. So ledger, report and `check` read both kinds of rows alike.

It knows the encoder's tokenizer and its prompts. It does not know vectors.
"""

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from transformers import PreTrainedTokenizerBase

from job.config.schema import RetrieverSection
from job.data.control_tokens import ControlTokens
from job.data.rows import IGNORE_INDEX, transform
from job.run.row_facts import Rejection

SETTINGS = "config_sentence_transformers.json"
_IDS = pa.list_(pa.int32())


@dataclass(frozen=True)
class Prompts:
    """What is written before each question and before each answer; empty for most encoders."""

    query: str = ""
    document: str = ""


def read_prompts(section: RetrieverSection, base: Path) -> Prompts:
    """Decide the prompts: those of the config, else those of the base.

    Args:
        section: the config's.
        base: the folder of the base, in the form of sentence-transformers; it may be missing.
    """
    path = base / SETTINGS
    own: dict[str, str] = json.loads(path.read_text(encoding="utf-8")).get("prompts") or {} if path.exists() else {}
    query = section.query_prompt if section.query_prompt is not None else own.get("query") or ""
    document = section.document_prompt if section.document_prompt is not None else own.get("document") or ""
    return Prompts(query, document)


def encode(
    rows: datasets.Dataset,
    tokenizer: PreTrainedTokenizerBase,
    max_length: int,
    counts: Counter[str] | None = None,
    check: Callable[[str, str], str | None] | None = None,
    find_prompts: Callable[[], Prompts] = Prompts,
) -> tuple[datasets.Dataset, list[Rejection]]:
    """Tokenize questions and answers.

    Args:
        rows: {"question", "answer", "where"}; other columns pass through.
        tokenizer: the encoder's.
        max_length: longest question, and longest answer, in tokens with prompt and special tokens.
        counts: unused, since an answer of a retriever has no end-of-sequence token to remove.
        check: unused, as nothing of a row changes here.
        find_prompts: gives the prompts.

    Returns:
        The rows kept, with "input_ids" and "labels"; and the rejected ones. A row that is too long is rejected, never
        cut: the vector of a cut answer would not be that of the answer.
    """
    prompts = find_prompts()
    schema = rows.features.arrow_schema.remove_metadata()
    for name, type_ in {"reason": pa.string(), "input_ids": _IDS, "labels": _IDS}.items():
        schema = schema.append(pa.field(name, type_))
    encoded = transform(rows, _encoder(tokenizer, max_length, schema, prompts), schema, "encode")
    is_rejected = pc.is_valid(encoded.with_format("arrow")["reason"][:]).to_numpy(zero_copy_only=False)
    columns = [name for name in ("id", "where", "reason") if name in schema.names]
    dropped = encoded.select_columns(columns).select(np.flatnonzero(is_rejected))
    rejected = [Rejection(**row, stage="encode") for row in dropped]
    return encoded.select(np.flatnonzero(~is_rejected)).remove_columns(["reason"]), rejected


def _encoder(
    tokenizer: PreTrainedTokenizerBase, max_length: int, schema: pa.Schema, prompts: Prompts
) -> Callable[[pa.Table], pa.Table]:
    control_tokens = ControlTokens(tokenizer)
    max_characters = max_length * max(map(len, tokenizer.get_vocab()))

    def encode_batch(table: pa.Table) -> pa.Table:
        pairs = list(zip(table["question"].to_pylist(), table["answer"].to_pylist(), strict=True))
        reasons = [_problem(pair, control_tokens, max_characters) for pair in pairs]
        valid = [number for number, reason in enumerate(reasons) if reason is None]
        ids: list[list[int]] = [[] for _ in pairs]
        labels: list[list[int]] = [[] for _ in pairs]
        questions = _tokens(tokenizer, [prompts.query + pairs[number][0] for number in valid])
        answers = _tokens(tokenizer, [prompts.document + pairs[number][1] for number in valid])
        for number, question, answer in zip(valid, questions, answers, strict=True):
            name, longer = ("question", question) if len(question) > len(answer) else ("answer", answer)
            if len(longer) > max_length:
                reasons[number] = _too_long(name, f"{len(longer)} tokens", max_length)
            else:
                ids[number], labels[number] = question + answer, [IGNORE_INDEX] * len(question) + answer
        columns = {"reason": pa.array(reasons, pa.string()), "input_ids": pa.array(ids, _IDS)}
        columns["labels"] = pa.array(labels, _IDS)
        return pa.table([columns[name] if name in columns else table[name] for name in schema.names], schema=schema)

    return encode_batch


def _tokens(tokenizer: PreTrainedTokenizerBase, texts: list[str]) -> list[list[int]]:
    ids: list[list[int]] = tokenizer(texts)["input_ids"] if texts else []
    return ids


def _problem(pair: tuple[str, str], control_tokens: ControlTokens, max_characters: int) -> str | None:
    """The reason to reject a row before tokenizing, which takes minutes for a text of a million characters."""
    for column, text in zip(("question", "answer"), pair, strict=True):
        if (reason := control_tokens.reason_against(column, text)) is not None:
            return reason
        if len(text) > max_characters:
            return _too_long(column, f"{len(text)} characters", max_characters)
    return None


def _too_long(column: str, length: str, limit: int) -> str:
    return f"too long: {column} of {length}, {limit} fit (model.max_length); a cut text would have another vector"
