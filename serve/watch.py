"""Watches the engines' processes: kills one that hangs while it loads, and ends the server if they die too often.

LitServe restarts an engine whatever the cause and however often it dies; this module sets the limit. An engine that is
ready sends heartbeats to the HTTP process (`link.py`, `http/app.py`). One that loads sends none, so its process is
watched from outside:

- A load hangs if it does no work: it uses no processor time and reads no pages of a file. A first load may take any
  time as long as it works. Where there is no /proc (macOS), this is not detected.
- A reload also hangs if it takes much longer than the first load did.

It knows processes. It does not know HTTP, signals or models.
"""

import logging
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path

from serve.shared import Shared
from serve.worker import HTTP_GONE, REFUSED

log = logging.getLogger(__name__)
POLL_SECONDS = 0.2
"""Between two checks. All times are counted in checks, so that a machine that was asleep counts as no hang."""
DIED = 1
MAX_RESTARTS = 3
RESTART_WINDOW_SECONDS = 300.0
STILL_HANGS = 2
"""Times --hang-seconds that a load may stand still: a cold disk, or one in the network, may pause."""
STILL_SECONDS = 5.0
"""At least: the system counts processor time in hundredths of a second, and other processes may use the processor."""
RELOAD_SECONDS, RELOAD_TIMES = 60.0, 5
"""A reload may take the longer of this time and this many times the first load's: the machine may be busier now."""
REPLACEMENT_SECONDS = 30.0
"""LitServe looks for dead engines every two seconds; once it has failed to start a process, it stops looking."""


@dataclass
class _Load:
    """What is known of an engine's process while it loads, or from its death until it is replaced. Times in seconds."""

    process: BaseProcess
    seconds: float = 0.0
    still: float = 0.0
    work: tuple[str, ...] | None = None
    hung: str = ""
    """Why it was killed; empty if it was not."""
    dead: float = 0.0


class Watch:
    """The watch; `run` it in a thread of the main process, from the start of the engines to the end of the server."""

    def __init__(
        self,
        hang_seconds: float,
        shared: Shared,
        engines: Callable[[], Sequence[BaseProcess]],
        give_up: Callable[[int, str], None],
    ) -> None:
        """Prepare the watch.

        Args:
            hang_seconds: --hang-seconds.
            shared: the flags of the server.
            engines: returns the engines' current processes, each at its number.
            give_up: ends the server with an exit code and a reason.
        """
        self.hang_seconds, self.shared, self.engines, self.give_up = hang_seconds, shared, engines, give_up
        self.loads: dict[int, _Load] = {}
        self.first: dict[int, float] = {}
        """Seconds that each engine's first load took."""
        self.deaths: dict[int, list[float]] = {}

    def run(self) -> None:
        """Watch until the server stops."""
        while not self.shared.stopping.is_set():
            if self.shared.refused.is_set():
                self.give_up(REFUSED, "it cannot start")
            for number, process in enumerate(self.engines()):
                load = self.loads.get(number)
                if load is None or load.process is not process:
                    if load:
                        self._on_exit(number, load)  # it was replaced between two checks
                    load = self.loads[number] = _Load(process)
                self._check(number, load)
            time.sleep(POLL_SECONDS)

    def _check(self, number: int, load: _Load) -> None:
        if load.process.exitcode is not None:
            self._on_exit(number, load)
            load.dead += POLL_SECONDS
            if load.dead > REPLACEMENT_SECONDS:
                self.give_up(DIED, f"an engine that died was not restarted within {REPLACEMENT_SECONDS:.0f} s")
        elif self.shared.ready[number].value == load.process.pid:
            self.first.setdefault(number, load.seconds)
        elif not load.hung:
            load.hung = self._hang_reason(number, load)
            if load.hung:
                log.error("engine: %s while it loaded, killing it", load.hung)
                load.process.kill()

    def _hang_reason(self, number: int, load: _Load) -> str:
        """Why a load counts as hung; empty if it does not."""
        load.seconds += POLL_SECONDS
        work = _work_counters(load.process.pid)
        load.still = load.still + POLL_SECONDS if work == load.work is not None else 0.0
        load.work = work
        if load.still > max(STILL_SECONDS, STILL_HANGS * self.hang_seconds):
            return f"it did nothing for {load.still:.0f} s"
        first = self.first.get(number)
        most = max(RELOAD_SECONDS, RELOAD_TIMES * (first or 0), STILL_HANGS * self.hang_seconds)
        if first is not None and load.seconds > most:
            return f"it took {load.seconds:.0f} s, and {first:.0f} s the first time"
        return ""

    def _on_exit(self, number: int, load: _Load) -> None:
        """Decide once per process that ended: end the server, or let LitServe restart the engine."""
        if load.dead or load.process.exitcode is None:
            return
        code, now, deaths = load.process.exitcode, time.monotonic(), self.deaths.setdefault(number, [])
        if self.shared.ready[number].value == load.process.pid:  # deaths before an engine was ready always count
            deaths[:] = [at for at in deaths if now - at < RESTART_WINDOW_SECONDS]
        deaths.append(now)
        if code == HTTP_GONE:
            self.give_up(DIED if self.shared.was_ready() else REFUSED, "the HTTP process died")
        elif not self.shared.loaded[number].is_set():
            killed = ", most likely because memory ran out" if code == -signal.SIGKILL else ""
            how = f"was killed, since {load.hung}," if load.hung else f"ended (exit code {code}{killed})"
            self.give_up(REFUSED, f"the engine {how} before it was ready")
        elif len(deaths) > MAX_RESTARTS:
            self.give_up(DIED, f"the engine died {len(deaths)} times in {now - deaths[0]:.0f} s")
        else:
            log.error("engine: died (exit code %s), restarting it", code)


def _work_counters(pid: int | None) -> tuple[str, ...] | None:
    """Counters that grow while a process works: page faults with I/O, user time and system time; None: no /proc."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    except OSError:
        return None
    return fields[9], fields[11], fields[12]
