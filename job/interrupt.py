"""SIGTERM and SIGINT: the first stops the run in good order, the second at once.

Outside `deferred` the first signal raises KeyboardInterrupt where the main thread stands; the stages write aside
and rename, so that nothing half-written is left. Inside `deferred` it only answers True to the question whether
to stop, which the training loop asks after every step.
"""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from job.errors import Exit

_seen = 0
_deferred = False


def install() -> None:
    """Handle both signals from now on."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _handle)


@contextmanager
def deferred() -> Iterator[Callable[[], bool]]:
    """Within the block a signal is only noted; the function it gives tells whether one came."""
    global _deferred
    _deferred = True
    try:
        yield lambda: _seen > 0
    finally:
        _deferred = False


def _handle(number: int, frame: FrameType | None) -> None:
    global _seen
    _seen += 1
    if _seen > 1:
        os._exit(Exit.INTERRUPTED)
    if not _deferred:
        raise KeyboardInterrupt
