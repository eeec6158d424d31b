"""What the engine asks of the forward passes; `Together` and `Apart` are the two ways. It knows no requests."""

from typing import Protocol

import torch


class Passes(Protocol):
    """The forward passes: `Together` or `Apart`."""

    bytes_per_token: int
    alone: bool
    """A pass takes one row."""

    def admit(self, length: int) -> None: ...

    def compute(self, rows: list[int], tokens: list[list[int]], decode: bool) -> torch.Tensor: ...

    def arrange(self, order: list[int]) -> None: ...

    def wipe(self, row: int) -> None: ...

    def release(self) -> None: ...
