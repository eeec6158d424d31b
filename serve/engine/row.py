"""The state of a running request. It does not know where its keys and values are."""

from dataclasses import dataclass, field

import torch

from serve.engine.request import Request


@dataclass
class Row:
    """A running request and what has been computed of it."""

    request: Request
    generator: torch.Generator
    generated: list[int] = field(default_factory=list)
    computed: int = 0
    """Tokens of the prompt that are in the cache."""
    turn: int = 0
    """The step in which it started, or was computed last."""
    began: float = 0.0
    """When its first pass started, by `time.monotonic()`; 0 before."""

    @property
    def prefilling(self) -> bool:
        """Whether its prompt is not yet computed."""
        return self.computed < len(self.request.prompt)
