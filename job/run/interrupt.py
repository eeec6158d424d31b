"""SIGTERM, SIGINT and SIGHUP (the terminal is gone): the first stops the run in good order, the second at once.

Outside `deferred` the first signal raises KeyboardInterrupt where the main thread stands; the stages write aside
and rename, so that nothing half-written is left. Inside `deferred` it only answers True to the question whether
to stop, which the training loop asks after every step.

Python handles a signal only between two of its own instructions, and a library may compute or wait for minutes
within one, or swallow the KeyboardInterrupt. So a thread of its own hears of every signal too: it carries out the
second one, and it says so when the first has not ended the run within `PATIENCE_SECONDS`. Outside `deferred` it then
ends the process itself: whatever is under way has been written aside.
"""

import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from job.errors import Exit

PATIENCE_SECONDS = 5.0
_seen = 0
_deferred = False
_over = False
log = logging.getLogger(__name__)


def install() -> None:
    """Handle the signals from now on; one that nohup has turned off stays off."""
    heard, told = os.pipe()
    os.set_blocking(told, False)
    signal.set_wakeup_fd(told, warn_on_full_buffer=False)
    for number in _handled():
        signal.signal(number, _handle)
    threading.Thread(target=_watch, args=(heard,), name="signals", daemon=True).start()
    os.register_at_fork(after_in_child=_uninstall)


def _uninstall() -> None:
    """In a worker, which its pool ends with SIGTERM: over the pipe that it shares the run would hear of that too."""
    signal.set_wakeup_fd(-1)
    for number in _handled():
        signal.signal(number, signal.SIG_DFL)


def _handled() -> list[signal.Signals]:
    hung_up = [] if signal.getsignal(signal.SIGHUP) == signal.SIG_IGN else [signal.SIGHUP]
    return [signal.SIGTERM, signal.SIGINT, *hung_up]


@contextmanager
def deferred() -> Iterator[Callable[[], bool]]:
    """Within the block a signal is only noted; the function it gives tells whether one came.

    Raises:
        KeyboardInterrupt: at the end of the block, if one came and nothing in it took notice.
    """
    global _deferred
    _deferred = True
    try:
        yield lambda: _seen > 0
    finally:
        _deferred = False
    if _seen:
        raise KeyboardInterrupt


def seen() -> bool:
    """Whether a signal has come; an error after it may be nothing but its consequence."""
    return _seen > 0


def over() -> None:
    """The run has ended, only the last line is still to be said: signals change nothing any more."""
    global _over
    _over = True


def _handle(number: int, frame: FrameType | None) -> None:
    global _seen
    if _over:
        return
    _seen += 1
    if _seen == 1 and not _deferred:
        raise KeyboardInterrupt


def _watch(heard: int) -> None:
    os.read(heard, 1)
    threading.Thread(target=_lose_patience, daemon=True).start()
    os.read(heard, 1)
    if not _over:
        os._exit(Exit.INTERRUPTED)


def _lose_patience() -> None:
    time.sleep(PATIENCE_SECONDS)
    if _over:
        return
    if _deferred:
        log.warning(
            f"a signal came {PATIENCE_SECONDS:.0f} s ago: the step under way ends first, and what is being written is "
            "completed; a second signal leaves at once, with the last complete checkpoint"
        )
        return
    log.warning(
        f"a signal came {PATIENCE_SECONDS:.0f} s ago and what is under way does not let go: leaving it; "
        "finished work is kept, run the same command again"
    )
    os._exit(Exit.INTERRUPTED)
