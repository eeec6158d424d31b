"""Forward passes of many rows at once, each with its row of one cache and its own positions.

It is the fast path. It needs a model whose attention is the one of attention.py; whether the model is computed as it
should be, `verify` finds out before it is used.
"""

import inspect

import torch
from transformers import PreTrainedModel

from serve.engine import attention
from serve.engine.cache import RowCache, bytes_per_token, one_token


class BatchedPasses:
    """The rows that are being computed. A row is known by its index; the rows that decode come first."""

    one_row = False

    def __init__(self, model: PreTrainedModel) -> None:
        shapes = one_token(model)
        self.model = model
        self.cache = RowCache(shapes)
        self.bytes_per_token = bytes_per_token(shapes)
        self._keeps_logits = "logits_to_keep" in inspect.signature(model.forward).parameters

    def add_row(self, length: int) -> None:
        """A new last row, which will hold `length` tokens of a prompt."""
        self.cache.add_row(length)

    def compute(self, rows: list[int], tokens: list[list[int]], decode: bool) -> torch.Tensor:
        """Feed each of `rows` its next tokens; the logits behind the last of them, (rows, vocabulary).

        `decode`: one token each, and `rows` are the first ones, without a gap.

        Raises:
            attention.Unsupported: the model asks for what attention.py does not do.
        """
        device = self.model.device
        counts = [len(piece) for piece in tokens]
        layout = self.cache.reserve(rows, counts, decode, device)
        ids = torch.zeros(layout.positions.shape, dtype=torch.long)
        for row, piece in enumerate(tokens):
            ids[row, : len(piece)] = torch.tensor(piece)
        # logits only where some piece ends
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
        """Row i is what row order[i] was; the others are dropped."""
        self.cache.arrange(order)

    def wipe(self, row: int) -> None:
        """Nothing of the row may reach another that comes to lie there."""
        self.cache.wipe(row)

    def release(self) -> None:
        """Give the memory back; there must be no rows."""
        self.cache.release()
