"""How many requests may be inside at once, and when to come again.

It knows counts and times. It knows nothing of requests.
"""

import math
import time
from collections import deque

REMEMBERED = 64


class Admission:
    """Counts those inside. `most` is running and waiting together."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.inside = 0
        self._left: deque[float] = deque(maxlen=REMEMBERED)

    @property
    def full(self) -> bool:
        return self.inside >= self.most

    def enter(self, count: int = 1) -> bool:
        """Take `count` places, or none: False if they are not free."""
        if self.inside + count > self.most:
            return False
        self.inside += count
        return True

    def leave(self, count: int = 1) -> None:
        self.inside -= count
        self._left.extend([time.monotonic()] * count)

    def retry_after(self) -> int:
        """Whole seconds, 1 to 60, in which at the present rate a tenth of the places will be free."""
        if len(self._left) < 2:
            return 1
        elapsed = max(time.monotonic() - self._left[0], 0.001)
        rate = len(self._left) / elapsed
        return max(1, min(60, math.ceil(self.most / 10 / rate)))
