"""Question noise: changes some tokens of a question at random, anew in each step.

A file asks in one wording, and users ask in others. Answers repeat words of their question, so a generator learns to
copy them; asked in other words it copies those, and goes on to a wrong answer. A word that is left out has to be
known, and one that stands in another's place must not be copied.

It knows ids by row number. It does not know models.
"""

import numpy as np
from transformers import PreTrainedTokenizerBase

from job.data.prompt import prompt_ids
from job.training.batches import Rows

FEWEST_TOKENS = 3
"""Of a question that loses tokens, so that something is left to ask."""


class QuestionNoise:
    """Prompts of a generator whose questions lack some of their tokens, and have others' tokens in place of some."""

    def __init__(self, rows: Rows, tokenizer: PreTrainedTokenizerBase, dropped: float, replaced: float) -> None:
        """Find the questions in the prompts.

        Args:
            rows: the training rows.
            tokenizer: that encoded them, with its chat template.
            dropped: share of a question's tokens that are left out.
            replaced: share of those left that give way to tokens of questions that are drawn at random.
        """
        self._rows, self._dropped, self._replaced = rows, dropped, replaced
        self._leading, self._trailing = count_template(tokenizer)

    def reword(self, row: int, seed: tuple[int, int]) -> np.ndarray:
        """Give the prompt of a row, changed but for the chat template's tokens; the same for the same seed."""
        random = np.random.default_rng((*seed, row))
        prompt = drop(self._rows.split(row)[0], self._dropped, random, self._leading, self._trailing).copy()
        end = len(prompt) - self._trailing
        for at in self._leading + np.flatnonzero(random.random(end - self._leading) < self._replaced):
            prompt[at] = self._draw(random, prompt[at])
        return prompt

    def _draw(self, random: np.random.Generator, instead: int) -> int:
        """Draw a token of a question; `instead` stays if the question has none."""
        other = self._rows.split(int(random.integers(len(self._rows))))[0]
        question = other[self._leading : len(other) - self._trailing]
        return int(random.choice(question)) if len(question) else instead


def drop(ids: np.ndarray, share: float, random: np.random.Generator, leading: int, trailing: int) -> np.ndarray:
    """Leave out some tokens of a text, but none of its first `leading` and last `trailing`."""
    end = len(ids) - trailing
    kept = random.random(end - leading) >= share
    if kept.sum() < FEWEST_TOKENS:
        return ids
    return np.concatenate([ids[:leading], ids[leading:end][kept], ids[end:]])


def count_template(tokenizer: PreTrainedTokenizerBase) -> tuple[int, int]:
    """Count the chat template's tokens before and after a question, by two prompts that have no others in common."""
    one, other = prompt_ids(["a", "7"], tokenizer)
    shorter = min(len(one), len(other))
    leading = next((at for at in range(shorter) if one[at] != other[at]), shorter)
    rest = shorter - leading
    trailing = next((at for at in range(rest) if one[-1 - at] != other[-1 - at]), rest)
    return leading, trailing
