"""What the server's processes tell each other by flags, for as long as the server runs.

It knows processes. What they say about requests goes over `link.py`.
"""

import ctypes
from dataclasses import dataclass, field
from multiprocessing.sharedctypes import RawValue


class Flag:
    """Set once by any process, seen by all.

    It is plain shared memory and not multiprocessing's Event: that has a lock, which a process that is killed while it
    looks would keep for ever.
    """

    def __init__(self) -> None:
        self._value = RawValue(ctypes.c_bool, False)

    def set(self) -> None:
        self._value.value = True

    def is_set(self) -> bool:
        return bool(self._value.value)


class Number:
    """A number that one process sets and all see; 0 at first. Plain memory, as `Flag` is."""

    def __init__(self) -> None:
        self._value = RawValue(ctypes.c_int, 0)

    @property
    def value(self) -> int:
        return int(self._value.value)

    def set(self, value: int) -> None:
        self._value.value = value


@dataclass(frozen=True)
class Shared:
    """One for all processes."""

    engines: int
    stopping: Flag = field(default_factory=Flag)
    """The main process was told to end: requests should go elsewhere."""
    ended: Flag = field(default_factory=Flag)
    """The main process has ended the others: who is started now has nothing to do."""
    refused: Flag = field(default_factory=Flag)
    """The server cannot start, most likely for the model, and the log says why. Never set by what was ready once."""
    tokenizer_loaded: Flag = field(default_factory=Flag)
    loaded: list[Flag] = field(init=False)
    """One for each engine: it has been ready at least once."""
    ready: list[Number] = field(init=False)
    """One for each engine: the process in which it last became ready."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "loaded", [Flag() for _ in range(self.engines)])
        object.__setattr__(self, "ready", [Number() for _ in range(self.engines)])

    def was_ready(self) -> bool:
        """Whether the server has been able to answer."""
        return self.tokenizer_loaded.is_set() and any(engine.is_set() for engine in self.loaded)
