"""Progress: a bar with the remaining time on a terminal, else a log line every ten seconds."""

import logging
import sys
import time
from types import TracebackType
from typing import Self

from tqdm import tqdm

log = logging.getLogger(__name__)
_EVERY_SECONDS = 10


class Progress:
    """Shows progress: `with Progress("train", 300, "step") as progress: ... progress.update(1, loss="2.31")`."""

    def __init__(self, title: str, total: int, unit: str, done: int = 0) -> None:
        """Start the display.

        Args:
            title: What is in progress.
            total: Units at the end.
            unit: Name of one unit.
            done: Units finished before, by an earlier call.
        """
        self._title, self._total, self._unit = title, total, unit
        self._first = self._done = done
        self._started = self._printed = time.monotonic()
        terminal = sys.stderr.isatty()
        self._bar = tqdm(desc=title, total=total, initial=done, unit=unit, leave=False) if terminal else None

    def update(self, count: int, **facts: str) -> None:
        """Count `count` more units as done, and show `facts` beside them."""
        self._done += count
        if self._bar is not None:
            self._bar.update(count)
            self._bar.set_postfix(facts, refresh=False)
        elif time.monotonic() - self._printed >= _EVERY_SECONDS:
            self._printed = time.monotonic()
            rate = (self._done - self._first) / (self._printed - self._started)
            left = (self._total - self._done) / rate if rate else 0
            words = "".join(f" · {name} {value}" for name, value in facts.items())
            log.info(f"{self._title}: {self._unit} {self._done}/{self._total}{words} · {left:.0f} s left")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.close()
