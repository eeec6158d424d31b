"""Forward passes of one row at a time, as transformers' own `generate` makes them, over transformers' own cache.

It is the slow path, for models whose attention is not the one of attention.py: every row costs a pass of its own.
`verify` compares it with `generate` before it is used.
"""

import inspect
from typing import Any

import torch
from transformers import PreTrainedModel

from serve.engine.cache import bytes_per_token, empty_cache, one_token


class SinglePasses:
    """The rows that are being computed, each with a cache of its own; see `BatchedPasses` for the methods."""

    one_row = True
    """One pass a step: the engine reports between any two, and a pass that fails fails its own request only."""

    def __init__(self, model: PreTrainedModel) -> None:
        self.bytes_per_token = bytes_per_token(one_token(model))
        self.model: Any = model  # generation's methods have no types
        self._accepted = set(inspect.signature(model.forward).parameters)
        self._texts: list[list[int]] = []
        self._caches: list[Any] = []

    def add_row(self, length: int) -> None:
        self._texts.append([])
        self._caches.append(empty_cache(self.model))

    def compute(self, rows: list[int], tokens: list[list[int]], decode: bool) -> torch.Tensor:
        return torch.stack([self._compute_row(row, piece) for row, piece in zip(rows, tokens, strict=True)])

    def _compute_row(self, row: int, piece: list[int]) -> torch.Tensor:
        text = self._texts[row] + piece
        ids = torch.tensor([text], device=self.model.device)
        arguments: dict[str, Any] = {
            "position_ids": torch.arange(len(text), device=ids.device)[None], "logits_to_keep": 1, "use_cache": True
        }  # fmt: skip
        inputs = self.model.prepare_inputs_for_generation(
            ids, next_sequence_length=len(piece), past_key_values=self._caches[row],
            attention_mask=torch.ones_like(ids), is_first_iteration=not self._texts[row],
            **{name: value for name, value in arguments.items() if name in self._accepted},
        )  # fmt: skip
        output = self.model(**inputs, return_dict=True)
        self._texts[row], self._caches[row] = text, output.past_key_values
        logits: torch.Tensor = output.logits[0, -1]
        return logits

    def arrange(self, order: list[int]) -> None:
        self._texts = [self._texts[old] for old in order]
        self._caches = [self._caches[old] for old in order]

    def wipe(self, row: int) -> None:
        """Nothing to do: no other row uses its cache."""

    def release(self) -> None:
        """Nothing to do: a row's cache goes with the row."""
