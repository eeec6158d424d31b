"""What the server's processes tell each other by flags, for as long as the server runs.

It knows processes. What they say about requests goes over `link.py`.
"""

import multiprocessing
from dataclasses import dataclass, field
from multiprocessing.synchronize import Event

# LitServe spawns the engines and forks the HTTP process: these can be given to both
_context = multiprocessing.get_context("spawn")


@dataclass(frozen=True)
class Shared:
    """One for all processes. A flag that is set stays set."""

    engines: int
    stopping: Event = field(default_factory=_context.Event)
    """The main process was told to end: requests should go elsewhere."""
    ended: Event = field(default_factory=_context.Event)
    """The main process has ended the others: who is started now has nothing to do."""
    tokenizer_loaded: Event = field(default_factory=_context.Event)
    loaded: list[Event] = field(init=False)
    """One for each engine: it has been ready at least once."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "loaded", [_context.Event() for _ in range(self.engines)])

    def was_ready(self) -> bool:
        """Whether the server has been able to answer."""
        return self.tokenizer_loaded.is_set() and any(engine.is_set() for engine in self.loaded)
