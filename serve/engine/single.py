"""Computes forward passes of one row at a time, exactly as transformers' `generate`, with transformers' own cache.

It is the slow path, for models that cannot use attention.py: every row costs a pass of its own. `verify` compares it
with `generate` before it is used. It does not know requests.
"""

import inspect
from typing import Any

import torch
from transformers import PreTrainedModel

from serve.engine.cache import bytes_per_token, empty_cache, one_token


class SinglePasses:
    """The rows that run, each with a cache of its own; see `Passes` for the methods."""

    one_row = True
    """The engine computes one pass per step: it sends a beat between two, and a failed pass fails one request only."""

    def __init__(self, model: PreTrainedModel) -> None:
        self.bytes_per_token = bytes_per_token(one_token(model))
        self.model: Any = model  # transformers' generation methods have no types
        self._accepted = set(inspect.signature(model.forward).parameters)
        self._texts: list[list[int]] = []
        self._caches: list[Any] = []

    def add_row(self, length: int) -> None:
        """Add a last row."""
        self._texts.append([])
        self._caches.append(empty_cache(self.model))

    def compute(self, rows: list[int], tokens: list[list[int]], decode: bool) -> torch.Tensor:
        """Compute the next tokens of each row, one row after another; returns logits (rows, vocabulary)."""
        return torch.stack([self._compute_row(row, chunk) for row, chunk in zip(rows, tokens, strict=True)])

    def _compute_row(self, row: int, chunk: list[int]) -> torch.Tensor:
        text = self._texts[row] + chunk
        ids = torch.tensor([text], device=self.model.device)
        arguments: dict[str, Any] = {
            "position_ids": torch.arange(len(text), device=ids.device)[None], "logits_to_keep": 1, "use_cache": True
        }  # fmt: skip
        inputs = self.model.prepare_inputs_for_generation(
            ids, next_sequence_length=len(chunk), past_key_values=self._caches[row],
            attention_mask=torch.ones_like(ids), is_first_iteration=not self._texts[row],
            **{name: value for name, value in arguments.items() if name in self._accepted},
        )  # fmt: skip
        output = self.model(**inputs, return_dict=True)
        self._texts[row], self._caches[row] = text, output.past_key_values
        logits: torch.Tensor = output.logits[0, -1]
        return logits

    def arrange(self, order: list[int]) -> None:
        """Make row order[i] row i; drop the others."""
        self._texts = [self._texts[old] for old in order]
        self._caches = [self._caches[old] for old in order]

    def wipe(self, row: int) -> None:
        """Do nothing: no other row uses this row's cache."""

    def release(self) -> None:
        """Do nothing: a row's cache is freed with the row."""
