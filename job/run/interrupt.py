"""Interrupt: handles SIGTERM, SIGINT and SIGHUP. The first signal stops the run cleanly, the second at once.

Outside `defer` the first signal raises KeyboardInterrupt in the main thread; stages write to temporary names and
rename, so that nothing half-written is left. Inside `defer` the signal is only recorded, and the training loop checks
for it after every step.

Python runs a signal handler only between two bytecode instructions. A library may compute or wait for minutes within
one, or swallow the KeyboardInterrupt. So a watcher thread also receives every signal. It carries out the second one,
and it logs a warning if the first has not ended the run within `PATIENCE_SECONDS`. Outside `defer` it then ends the
process: unfinished files still have their temporary names.
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
_ignoring = False
log = logging.getLogger(__name__)


def install() -> None:
    """Handle the signals from now on, except a SIGHUP that nohup ignores."""
    read_end, write_end = os.pipe()
    os.set_blocking(write_end, False)
    signal.set_wakeup_fd(write_end, warn_on_full_buffer=False)
    for number in _signals():
        signal.signal(number, _handle)
    threading.Thread(target=_watch, args=(read_end,), name="signals", daemon=True).start()
    os.register_at_fork(after_in_child=_uninstall)


def _uninstall() -> None:
    """Restore the defaults in a forked worker: its pool ends it with SIGTERM, which the shared pipe would report."""
    signal.set_wakeup_fd(-1)
    for number in _signals():
        signal.signal(number, signal.SIG_DFL)


def _signals() -> list[signal.Signals]:
    hangup = [] if signal.getsignal(signal.SIGHUP) == signal.SIG_IGN else [signal.SIGHUP]
    return [signal.SIGTERM, signal.SIGINT, *hangup]


@contextmanager
def defer() -> Iterator[Callable[[], bool]]:
    """Only record signals within the block.

    Yields:
        A function that returns whether a signal has come.

    Raises:
        KeyboardInterrupt: At the end of the block, if a signal came and the block ended normally.
    """
    global _deferred
    _deferred = True
    try:
        yield lambda: _seen > 0
    finally:
        _deferred = False
    if _seen:
        raise KeyboardInterrupt


def was_signalled() -> bool:
    """Return whether a signal has come; a later error may only be its consequence."""
    return _seen > 0


def ignore() -> None:
    """Ignore signals from now on: the run has ended, and only the last line is still to be printed."""
    global _ignoring
    _ignoring = True


def _handle(number: int, frame: FrameType | None) -> None:
    global _seen
    if _ignoring:
        return
    _seen += 1
    if _seen == 1 and not _deferred:
        raise KeyboardInterrupt


def _watch(read_end: int) -> None:
    os.read(read_end, 1)
    threading.Thread(target=_warn_or_exit, daemon=True).start()
    os.read(read_end, 1)
    if not _ignoring:
        os._exit(Exit.INTERRUPTED)


def _warn_or_exit() -> None:
    time.sleep(PATIENCE_SECONDS)
    if _ignoring:
        return
    if _deferred:
        log.warning(
            f"a signal came {PATIENCE_SECONDS:.0f} s ago: finishing the current step and the current write; a "
            "second signal ends the run at once, with the last complete checkpoint"
        )
        return
    log.warning(
        f"a signal came {PATIENCE_SECONDS:.0f} s ago, and the current operation does not stop: ending the process; "
        "finished work is kept, run the same command again"
    )
    os._exit(Exit.INTERRUPTED)
