"""The watch over the engines' processes: which hang while they load, how they ended, and when that is enough.

LitServe starts an engine anew whatever it died of, and as often as it dies; here is where that ends. An engine that is
ready tells the HTTP process that it lives (`link.py`, `serving.py`); one that loads tells nobody, so it is watched from
outside:

- It is hung if it does no work: it uses no processor and reads no pages of a file. A first load may take as long as it
  needs, since nobody knows how long that is, but not stand still. Where there is no /proc (macOS) this is not seen.
- A reload is hung, too, if it takes much longer than the first load did.

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
from serve.worker import ALONE, REFUSED

log = logging.getLogger(__name__)
LOOK_SECONDS = 0.2
"""Between looks at the engines. All times are counted in looks: when the whole machine was asleep, nobody hung."""
DIED = 1
STARTED_ANEW_AT_MOST = 3
WITHIN_SECONDS = 300.0
STILL_HANGS = 2
"""Times --hang-seconds that a load may stand still; the disk of a cold machine, or one in the network, may pause."""
STILL_SECONDS = 5.0
"""At least: a processor's time is counted in hundredths of a second, and others may have the processor."""
RELOAD_SECONDS, RELOAD_TIMES = 60.0, 5
"""A reload may take this long, and this many times the first load's time: the machine may be busier than it was."""
REPLACED_SECONDS = 30.0
"""LitServe looks every two seconds for engines that died; where it cannot start a process, it stops to look."""


@dataclass
class _Load:
    """What has been seen of an engine's process until it is ready, or from its death until it is replaced."""

    process: BaseProcess
    seconds: float = 0.0
    still: float = 0.0
    work: tuple[str, ...] | None = None
    hung: str = ""
    """Why it was killed, if it was."""
    dead: float = 0.0


class Watch:
    """`run` in a thread of the main process, from the start of the engines to the end of the server."""

    def __init__(
        self,
        hang_seconds: float,
        shared: Shared,
        engines: Callable[[], Sequence[BaseProcess]],
        give_up: Callable[[int, str], None],
    ) -> None:
        """`engines`: their processes now, each at its number. `give_up` ends the server with a code and a reason."""
        self.hang_seconds, self.shared, self.engines, self.give_up = hang_seconds, shared, engines, give_up
        self.loads: dict[int, _Load] = {}
        self.first: dict[int, float] = {}
        """Seconds that an engine's first load took."""
        self.deaths: dict[int, list[float]] = {}

    def run(self) -> None:
        while not self.shared.stopping.is_set():
            if self.shared.refused.is_set():
                self.give_up(REFUSED, "it cannot start")
            for number, process in enumerate(self.engines()):
                load = self.loads.get(number)
                if load is None or load.process is not process:
                    if load:
                        self._ended(number, load)  # it was replaced between two looks
                    load = self.loads[number] = _Load(process)
                self._look(number, load)
            time.sleep(LOOK_SECONDS)

    def _look(self, number: int, load: _Load) -> None:
        if load.process.exitcode is not None:
            self._ended(number, load)
            load.dead += LOOK_SECONDS
            if load.dead > REPLACED_SECONDS:
                self.give_up(DIED, f"an engine that died was not started anew within {REPLACED_SECONDS:.0f} s")
        elif self.shared.ready[number].value == load.process.pid:
            self.first.setdefault(number, load.seconds)
        elif not load.hung:
            load.hung = self._hangs(number, load)
            if load.hung:
                log.error("engine: %s while it loaded, killing it", load.hung)
                load.process.kill()

    def _hangs(self, number: int, load: _Load) -> str:
        """Why a load counts as hung; empty if it goes on."""
        load.seconds += LOOK_SECONDS
        work = _work(load.process.pid)
        load.still = load.still + LOOK_SECONDS if work == load.work is not None else 0.0
        load.work = work
        if load.still > max(STILL_SECONDS, STILL_HANGS * self.hang_seconds):
            return f"it did nothing for {load.still:.0f} s"
        first = self.first.get(number)
        most = max(RELOAD_SECONDS, RELOAD_TIMES * (first or 0), STILL_HANGS * self.hang_seconds)
        if first is not None and load.seconds > most:
            return f"it took {load.seconds:.0f} s, and {first:.0f} s the first time"
        return ""

    def _ended(self, number: int, load: _Load) -> None:
        """End the server, or leave it to LitServe to start the engine anew. Each engine is judged once."""
        if load.dead or load.process.exitcode is None:
            return
        code, now, deaths = load.process.exitcode, time.monotonic(), self.deaths.setdefault(number, [])
        if self.shared.ready[number].value == load.process.pid:  # one that never was counts however long it took
            deaths[:] = [at for at in deaths if now - at < WITHIN_SECONDS]
        deaths.append(now)
        if code == ALONE:
            self.give_up(DIED if self.shared.was_ready() else REFUSED, "the HTTP process died")
        elif not self.shared.loaded[number].is_set():
            killed = ", most likely for memory" if code == -signal.SIGKILL else ""
            how = f"was killed, since {load.hung}," if load.hung else f"ended (exit code {code}{killed})"
            self.give_up(REFUSED, f"the engine {how} before it was ready")
        elif len(deaths) > STARTED_ANEW_AT_MOST:
            self.give_up(DIED, f"the engine died {len(deaths)} times in {now - deaths[0]:.0f} s")
        else:
            log.error("engine: died (exit code %s), it is started anew", code)


def _work(pid: int | None) -> tuple[str, ...] | None:
    """What grows while a process works: pages read of files, and processor time of its own and the system's."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    except OSError:
        return None
    return fields[9], fields[11], fields[12]
