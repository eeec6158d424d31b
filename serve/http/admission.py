"""Admission: limits how many requests the server holds at once, and says when to try again.

It knows counts and times. It does not know requests.
"""

import math
import time
from collections import deque

REMEMBERED = 64
"""Requests that have left, from which the rate is computed."""


class Admission:
    """Counts the requests that the server holds, running and waiting together, up to `most`."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.inside = 0
        self._left: deque[float] = deque(maxlen=REMEMBERED)

    @property
    def full(self) -> bool:
        """Whether every place is taken."""
        return self.inside >= self.most

    def enter(self, count: int = 1) -> bool:
        """Take `count` places; take none and return False if fewer are free."""
        if self.inside + count > self.most:
            return False
        self.inside += count
        return True

    def leave(self, count: int = 1) -> None:
        """Give `count` places back."""
        self.inside -= count
        self._left.extend([time.monotonic()] * count)

    def retry_after(self) -> int:
        """Seconds, 1 to 60, until a tenth of the places is free at the current rate."""
        if len(self._left) < 2:
            return 1
        elapsed = max(time.monotonic() - self._left[0], 0.001)
        rate = len(self._left) / elapsed
        return max(1, min(60, math.ceil(self.most / 10 / rate)))
