"""Passes: the interface of a forward pass. `BatchedPasses` and `SinglePasses` implement it; it knows no requests."""

from typing import Protocol

import torch


class Passes(Protocol):
    """What the engine calls; see `BatchedPasses` for what each method does."""

    bytes_per_token: int
    one_row: bool
    """A pass takes one row."""

    def add_row(self, length: int) -> None: ...

    def compute(self, rows: list[int], tokens: list[list[int]], decode: bool) -> torch.Tensor: ...

    def arrange(self, order: list[int]) -> None: ...

    def wipe(self, row: int) -> None: ...

    def release(self) -> None: ...
