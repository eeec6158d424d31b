"""Prompt: a question as the model reads it, and an encoded row as text again.

This is the contract with every server: `[{"role": "user", "content": question}]` through the tokenizer's chat template
with `add_generation_prompt=True`, and with the retrieved rows as `documents` for a grounded model. It does not know how
a row is trained.
"""

from collections.abc import Mapping, Sequence
from itertools import repeat
from typing import Any

from transformers import PreTrainedTokenizerBase

from job.data.rows import IGNORE_INDEX
from job.run.row_facts import Rendered

Documents = list[dict[str, str]]
"""Retrieved rows, the best first: {"title": question, "text": answer}; no title where the question is not indexed."""


def prompt_ids(
    questions: list[str], tokenizer: PreTrainedTokenizerBase, documents: Sequence[Documents] | None = None
) -> list[list[int]]:
    """Turn questions into prompts.

    Args:
        questions: as a user asks them.
        tokenizer: with a chat template.
        documents: the retrieved rows of each question; None for a model that is not grounded.

    Returns:
        Token ids of each prompt, which the answer follows.
    """
    chats = [[{"role": "user", "content": question}] for question in questions]
    texts = [
        tokenizer.apply_chat_template(chat, documents=rows, add_generation_prompt=True, tokenize=False)
        for chat, rows in zip(chats, documents or repeat(None, len(chats)), strict=True)
    ]
    # the template has written every special token itself
    ids: list[list[int]] = tokenizer(texts, add_special_tokens=False)["input_ids"] if texts else []
    return ids


def prompt_length(labels: list[int]) -> int:
    """Count the tokens of the prompt in a row's labels, which are IGNORE_INDEX there."""
    return sum(label == IGNORE_INDEX for label in labels)


def render(row: Mapping[str, Any], tokenizer: PreTrainedTokenizerBase) -> Rendered:
    """Decode an encoded row: what the model reads, and what it is trained to write.

    Args:
        row: {"where", "input_ids", "labels"}, as `encode` makes it.
        tokenizer: that encoded the row.
    """
    length = prompt_length(row["labels"])
    prompt, answer = tokenizer.decode(row["input_ids"][:length]), tokenizer.decode(row["input_ids"][length:])
    return Rendered(row["where"], str(prompt), str(answer))
