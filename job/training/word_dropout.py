"""Word dropout: leaves out words of a generator's questions at random, others in each step.

A file asks in one wording, and users ask in others. Answers repeat words of their question, so a generator soon learns
to copy them. Asked in other words it copies those, and goes on from there to a wrong answer. What it cannot copy
because it was left out, it has to know.

It knows ids by row number and which tokens begin a word. It does not know models.
"""

import numpy as np
from transformers import PreTrainedTokenizerBase

from job.data.prompt import prompt_ids
from job.training.batches import Rows

_FEWEST_WORDS = 3
"""Of a question that are left, so that there is something to ask."""
_BLANKS = ("Ġ", "▁")
"""How byte-level and SentencePiece vocabularies write the blank before a word."""


class WordDropout:
    """Prompts of a generator whose questions lack some of their words."""

    def __init__(self, rows: Rows, tokenizer: PreTrainedTokenizerBase, share: float) -> None:
        """Find the questions in the prompts.

        Args:
            rows: the training rows.
            tokenizer: that encoded them, with its chat template.
            share: of a question's words that are left out.
        """
        self._rows, self._share = rows, share
        self._leading, self._trailing = count_template(tokenizer)
        tokens = tokenizer.convert_ids_to_tokens(list(range(len(tokenizer))))
        begins = [str(token).startswith(_BLANKS) for token in tokens]
        self._begins_word = np.array(begins if any(begins) else [True] * len(begins))

    def prompt(self, row: int, seed: tuple[int, int]) -> np.ndarray:
        """Give the prompt of a row without some words; the same for the same seed.

        Whoever computes the row draws the same: seed and row decide, not the process or the forward pass.
        """
        ids = self._rows.split(row)[0]
        end = len(ids) - self._trailing
        question = ids[self._leading : end]
        if not len(question):
            return ids
        begins = self._begins_word[question]
        words = np.cumsum(begins) - int(begins[0])
        if words[-1] < _FEWEST_WORDS:
            return ids
        draws = np.random.default_rng((*seed, row)).random(words[-1] + 1)
        kept = draws >= min(self._share, np.sort(draws)[-_FEWEST_WORDS])
        return np.concatenate([ids[: self._leading], question[kept[words]], ids[end:]])


def count_template(tokenizer: PreTrainedTokenizerBase) -> tuple[int, int]:
    """Count the chat template's tokens before and after a question, by two prompts that have no others in common."""
    one, other = prompt_ids(["a", "7"], tokenizer)
    shorter = min(len(one), len(other))
    leading = next((at for at in range(shorter) if one[at] != other[at]), shorter)
    rest = shorter - leading
    trailing = next((at for at in range(rest) if one[-1 - at] != other[-1 - at]), rest)
    return leading, trailing
