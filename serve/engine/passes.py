"""Passes: the interface of a forward pass. `BatchedPasses` and `SinglePasses` implement it; it knows no requests."""

from typing import Protocol

import torch


class Passes(Protocol):
    """What the engine calls; see `BatchedPasses` for what each method does."""

    bytes_per_token: int
    one_row: bool
    """A pass computes one row only."""

    def add_row(self, length: int) -> None:
        """Add a last row for a prompt of `length` tokens."""

    def compute(self, rows: list[int], tokens: list[list[int]], decode: bool) -> torch.Tensor:
        """Compute the next `tokens` of each of `rows`; returns logits (rows, vocabulary)."""

    def arrange(self, order: list[int]) -> None:
        """Make row order[i] row i; drop the others."""

    def wipe(self, row: int) -> None:
        """Remove what a row has written, since it may not be numbers."""

    def release(self) -> None:
        """Free the memory; there must be no rows."""
