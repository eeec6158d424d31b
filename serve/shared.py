"""Flags in shared memory through which the server's processes signal each other.

It knows processes. Messages about requests go through `link.py`.
"""

import ctypes
from dataclasses import dataclass, field
from multiprocessing.sharedctypes import RawValue


class Flag:
    """A boolean that any process can set once and every process can read.

    It is plain shared memory and not multiprocessing's Event, which has a lock: a process killed while it holds the
    lock would never release it.
    """

    def __init__(self) -> None:
        self._value = RawValue(ctypes.c_bool, False)

    def set(self) -> None:
        """Make the flag true, for good."""
        self._value.value = True

    def is_set(self) -> bool:
        """Whether any process has set the flag."""
        return bool(self._value.value)


class Number:
    """An integer that one process sets and every process can read; 0 at first. Plain memory, like `Flag`."""

    def __init__(self) -> None:
        self._value = RawValue(ctypes.c_int, 0)

    @property
    def value(self) -> int:
        """The number that was set last."""
        return int(self._value.value)

    def set(self, value: int) -> None:
        """Replace the number."""
        self._value.value = value


@dataclass(frozen=True)
class Shared:
    """The flags of one server; every process has the same instance. `engines` is their number."""

    engines: int
    stopping: Flag = field(default_factory=Flag)
    """The server is shutting down: new requests should go elsewhere."""
    ended: Flag = field(default_factory=Flag)
    """The main process has ended the others: a process started after that exits at once."""
    refused: Flag = field(default_factory=Flag)
    """The server cannot start, most likely because of the model; the log says why. Never set once it has been ready."""
    tokenizer_loaded: Flag = field(default_factory=Flag)
    loaded: list[Flag] = field(init=False)
    """For each engine: it has been ready at least once."""
    ready: list[Number] = field(init=False)
    """For each engine: the id of the process in which it last became ready."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "loaded", [Flag() for _ in range(self.engines)])
        object.__setattr__(self, "ready", [Number() for _ in range(self.engines)])

    def was_ready(self) -> bool:
        """Whether the server has ever been able to answer."""
        return self.tokenizer_loaded.is_set() and any(engine.is_set() for engine in self.loaded)
