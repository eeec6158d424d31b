"""Semantic: finds rows that mean the same, with a sentence-embedding model.

It knows the encoders of transformers, with mean pooling (Reimers and Gurevych, Sentence-BERT, 2019). It compares all
pairs of rows, so it is for thousands of rows, not for millions.
"""

from collections.abc import Iterator

import datasets
import torch
from transformers import AutoModel, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from job.errors import ConfigError

_BATCH = 64


def find_repeats(model: str, rows: datasets.Dataset, threshold: float) -> Iterator[tuple[int, int, float]]:
    """Find rows whose question and answer are both close to an earlier row's.

    Args:
        model: Hub id or folder of an encoder.
        rows: {"question", "answer"} and more.
        threshold: the least cosine of question and of answer.

    Yields:
        Position of the earlier row, which is no repeat itself; position of the repeat; and the lower of the two
        cosines. In the order of the repeats.

    Raises:
        ConfigError: the model does not exist, or is not an encoder.
    """
    try:
        tokenizer, encoder = AutoTokenizer.from_pretrained(model), AutoModel.from_pretrained(model).eval()
    except (OSError, ValueError) as error:
        raise ConfigError(f"dedupe.semantic_model: {model} cannot be loaded as an encoder: {error}") from None
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    question_vectors, answer_vectors = (_embed(rows[name][:], tokenizer, encoder) for name in ("question", "answer"))
    is_kept = torch.ones(len(rows), dtype=torch.bool)
    for row in range(1, len(rows)):
        cosines = (
            torch.minimum(question_vectors[:row] @ question_vectors[row], answer_vectors[:row] @ answer_vectors[row])
            * is_kept[:row]
        )
        best = int(cosines.argmax())
        if float(cosines[best]) >= threshold:
            is_kept[row] = False
            yield best, row, float(cosines[best])


@torch.no_grad()
def _embed(texts: list[str], tokenizer: PreTrainedTokenizerBase, encoder: PreTrainedModel) -> torch.Tensor:
    """The mean of the last layer over each text's tokens, normalised to length 1 [texts, width]."""
    parts = []
    for start in range(0, len(texts), _BATCH):
        batch = tokenizer(
            texts[start : start + _BATCH], padding=True, truncation=True, max_length=256, return_tensors="pt"
        )
        hidden = encoder(**batch).last_hidden_state
        mask = batch["attention_mask"].unsqueeze(-1)
        parts.append(torch.nn.functional.normalize((hidden * mask).sum(1) / mask.sum(1), dim=-1))
    return torch.cat(parts)
