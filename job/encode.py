"""Encode: from text to token ids, with the part that is trained marked by its labels.

It knows the tokenizer and its chat template. It does not know about batches or padding: rows are padded where a
batch is made, by length, so that a padding id which is also the end-of-text id never hides an end that must be
learned.

Prompt and answer are tokenized apart and joined. Tokenizing them as one text could merge characters across the
seam, and the server, which sees the prompt alone, would then send ids the model was never trained on.
"""

from typing import Any

import datasets
from transformers import PreTrainedTokenizerBase

from job.loss import IGNORED
from job.prompt import prompt_ids


def encode(
    rows: datasets.Dataset, tokenizer: PreTrainedTokenizerBase, max_length: int
) -> tuple[datasets.Dataset, list[dict[str, Any]]]:
    """Tokenize the rows.

    Args:
        rows: {"question", "answer", "where"}.
        tokenizer: with a chat template and an end-of-text token.
        max_length: longest row in tokens, prompt, answer and end together.

    Returns:
        {"question", "answer", "where", "input_ids", "labels"}: ids are prompt + answer + end of text, labels the
        same with IGNORED over the prompt. A row that is too long is rejected, never cut: a cut loses the end.
    """
    special = [token for token in tokenizer.all_special_tokens if token]
    longest_token = max(map(len, tokenizer.get_vocab()))
    kept: list[int] = []
    rejected: list[dict[str, Any]] = []
    for index, row in enumerate(rows):
        reason = _wrong(row, special, max_length * longest_token)
        if reason is None:
            kept.append(index)
        else:
            rejected.append({"where": row["where"], "stage": "encode", "reason": reason})
    if not kept:  # map would leave the new columns out
        features = _features(rows)
        return datasets.Dataset.from_dict({name: [] for name in features}, features=features), rejected
    encoded = rows.select(kept).map(
        lambda batch: _encode(batch["question"], batch["answer"], tokenizer),
        batched=True,
        features=_features(rows),
        keep_in_memory=True,
    )
    lengths = [len(ids) for ids in encoded["input_ids"]]
    for where, length in zip(encoded["where"], lengths, strict=True):
        if length > max_length:
            rejected.append({"where": where, "stage": "encode", "reason": _too_long(f"{length} tokens", max_length)})
    return encoded.select([index for index, length in enumerate(lengths) if length <= max_length]), rejected


def _encode(questions: list[str], answers: list[str], tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    asked = prompt_ids(questions, tokenizer)
    answered = tokenizer(answers, add_special_tokens=False)["input_ids"] if answers else []
    ends = [[*answer, tokenizer.eos_token_id] for answer in answered]
    return {
        "input_ids": [prompt + end for prompt, end in zip(asked, ends, strict=True)],
        "labels": [[IGNORED] * len(prompt) + end for prompt, end in zip(asked, ends, strict=True)],
    }


def _features(rows: datasets.Dataset) -> datasets.Features:
    ids = datasets.List(datasets.Value("int32"))
    return datasets.Features({**rows.features, "input_ids": ids, "labels": ids})


def _wrong(row: dict[str, str], special: list[str], most_characters: int) -> str | None:
    """Reasons that need no tokenizing: a text of a million characters would take it minutes."""
    for column in ("question", "answer"):
        for token in special:
            if token in row[column]:
                return f"the {column} holds {token}, which the tokenizer would take for its own mark"
        if len(row[column]) > most_characters:
            return _too_long(f"{len(row[column])} characters", most_characters)
    return None


def _too_long(found: str, most: int) -> str:
    return f"too long: {found}, {most} fit (model.max_length); a cut row would never learn to end"
