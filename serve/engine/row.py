"""A request that is running, and how far it is. It does not know where its keys and values lie."""

from dataclasses import dataclass, field

import torch

from serve.engine.request import Request


@dataclass
class Row:
    """A running request."""

    request: Request
    generator: torch.Generator
    generated: list[int] = field(default_factory=list)
    computed: int = 0
    """Tokens of the prompt that are in the cache."""
    turn: int = 0
    """The step in which it came, or was computed last."""
    began: float = 0.0
    """When its first pass began."""

    @property
    def joining(self) -> bool:
        return self.computed < len(self.request.prompt)
