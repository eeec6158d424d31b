"""Semantic: rows that mean the same, to a sentence-embedding model.

It knows transformers' encoders and mean pooling (Reimers and Gurevych, Sentence-BERT, 2019). It compares every row with
every other, so it is for thousands of rows, not for millions.
"""

from collections.abc import Iterator

import datasets
import torch
from transformers import AutoModel, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from job.errors import ConfigError

_BATCH = 64


def repeats(model: str, rows: datasets.Dataset, threshold: float) -> Iterator[tuple[int, int, float]]:
    """Rows whose question and answer both have a cosine of `threshold` or more to an earlier row's.

    Args:
        model: Hub id or folder of an encoder.

    Yields:
        (position of the earlier row, which is no repeat itself; position of the repeat; the lower cosine), in order.

    Raises:
        ConfigError: there is no such model.
    """
    try:
        tokenizer, encoder = AutoTokenizer.from_pretrained(model), AutoModel.from_pretrained(model).eval()
    except (OSError, ValueError) as error:
        raise ConfigError(f"dedupe.semantic_model: {model} is no encoder that can be loaded: {error}") from None
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    asked, answered = (_embed(rows[name][:], tokenizer, encoder) for name in ("question", "answer"))
    alive = torch.ones(len(rows), dtype=torch.bool)
    for row in range(1, len(rows)):
        cosines = torch.minimum(asked[:row] @ asked[row], answered[:row] @ answered[row]) * alive[:row]
        best = int(cosines.argmax())
        if float(cosines[best]) >= threshold:
            alive[row] = False
            yield best, row, float(cosines[best])


@torch.no_grad()
def _embed(texts: list[str], tokenizer: PreTrainedTokenizerBase, encoder: PreTrainedModel) -> torch.Tensor:
    """Mean of the last layer over each text's tokens, at length 1."""
    parts = []
    for start in range(0, len(texts), _BATCH):
        batch = tokenizer(
            texts[start : start + _BATCH], padding=True, truncation=True, max_length=256, return_tensors="pt"
        )
        hidden = encoder(**batch).last_hidden_state
        mask = batch["attention_mask"].unsqueeze(-1)
        parts.append(torch.nn.functional.normalize((hidden * mask).sum(1) / mask.sum(1), dim=-1))
    return torch.cat(parts)
