"""Computes forward passes of many rows at once, over one cache with a row for each.

It is the fast path. The model must use the attention of attention.py; `verify` checks its results before it is used. It
does not know requests.
"""

import inspect

import torch
from transformers import PreTrainedModel

from serve.engine import attention
from serve.engine.cache import RowCache, bytes_per_token, one_token


class BatchedPasses:
    """The rows that run, known by their indices; rows that decode come first."""

    one_row = False

    def __init__(self, model: PreTrainedModel) -> None:
        shapes = one_token(model)
        self.model = model
        self.cache = RowCache(shapes)
        self.bytes_per_token = bytes_per_token(shapes)
        self._keeps_logits = "logits_to_keep" in inspect.signature(model.forward).parameters

    def add_row(self, length: int) -> None:
        """Add a last row, with room for a prompt of `length` tokens."""
        self.cache.add_row(length)

    def compute(self, rows: list[int], tokens: list[list[int]], decode: bool) -> torch.Tensor:
        """Compute the next tokens of some rows in one forward pass.

        Args:
            rows: indices of the rows.
            tokens: for each of them the token ids that follow those in the cache.
            decode: one token each, and `rows` are the first ones, without a gap.

        Returns:
            The logits after the last token of each row, (rows, vocabulary).

        Raises:
            attention.Unsupported: the model needs an attention that attention.py does not implement.
        """
        device = self.model.device
        counts = [len(chunk) for chunk in tokens]
        layout = self.cache.reserve(rows, counts, decode, device)
        ids = torch.zeros(layout.positions.shape, dtype=torch.long)
        for row, chunk in enumerate(tokens):
            ids[row, : len(chunk)] = torch.tensor(chunk)
        # compute logits only at positions where a chunk ends
        ends, which = torch.unique(torch.tensor(counts) - 1, return_inverse=True)
        only = {"logits_to_keep": ends.to(device)} if self._keeps_logits else {}
        with attention.use_layout(layout):
            logits: torch.Tensor = self.model(
                ids.to(device), position_ids=layout.positions, past_key_values=self.cache, use_cache=True, **only
            ).logits
        if layout.calls < layout.updates or not layout.updates:
            raise attention.Unsupported(attention.OWN_ATTENTION)
        self.cache.commit()
        at = which if self._keeps_logits else torch.tensor(counts) - 1
        return logits[torch.arange(len(rows)), at]

    def arrange(self, order: list[int]) -> None:
        """Make row order[i] row i; drop the others."""
        self.cache.arrange(order)

    def wipe(self, row: int) -> None:
        """Zero a row, so that nothing of it reaches the row that takes its place."""
        self.cache.wipe(row)

    def release(self) -> None:
        """Free the cache's memory; there must be no rows."""
        self.cache.release()
