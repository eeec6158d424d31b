"""Threads: sets how long torch's threads spin before they sleep, by the load of the machine.

On every matrix product torch's threads wait for each other. By default they spin for milliseconds. If other processes
need the processors, spinning takes time from the threads that are waited for. A short spin costs nothing on an idle
machine. On a busy one, sleeping at once is better; on an idle one it would cost an eighth of the speed (`make
bench-shared`). OpenMP reads its settings once, when torch is loaded, so the load at that moment decides.

The module knows two environment variables of GNU OpenMP, which torch's wheels for Linux bring, and Linux's processor
statistics. It does not see a load that comes later; for that case the spin is short.
"""

import logging
import os
import time
from pathlib import Path

log = logging.getLogger(__name__)
STAT = Path("/proc/stat")
SPINS = "10000"
"""Iterations that a waiting thread spins on an idle machine before it sleeps."""
SECONDS = 0.25
"""Length of the measurement; the statistics count hundredths of a second."""
BUSY = 0.5
"""Load of other processes from which a thread sleeps at once; one busy process is 1."""
IDLE = (3, 4)
"""Fields of a processor's line in /proc/stat that count idle time: idle and iowait."""


def configure() -> None:
    """Set OpenMP's variables, unless the environment sets them already. Call it before torch is imported."""
    if {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"} & os.environ.keys():
        return
    if (busy := other_load()) >= BUSY:
        os.environ["OMP_WAIT_POLICY"] = "passive"
        log.info("other processes use %.1f of this machine's processors: torch's threads sleep while they wait", busy)
    else:
        os.environ["GOMP_SPINCOUNT"] = SPINS


def other_load() -> float:
    """Measure the load of other processes on the processors that this one may use.

    Returns:
        Busy processors, such as 1.5; 0 where the system has no such statistics.
    """
    try:
        earlier = _ticks()
        time.sleep(SECONDS)
        later = _ticks()
    except (OSError, ValueError, AttributeError):  # not Linux
        return 0.0
    busy = 0.0
    for name, fields in later.items():
        passed = [last - first for last, first in zip(fields, earlier[name], strict=True)]
        if sum(passed):
            busy += 1 - sum(passed[field] for field in IDLE) / sum(passed)
    return busy


def _ticks() -> dict[str, list[int]]:
    """Return the statistics in /proc/stat of each processor that this process may use, field by field."""
    usable = {f"cpu{number}" for number in os.sched_getaffinity(0)}
    lines = [line.split() for line in STAT.read_text(encoding="ascii").splitlines()]
    # the last two fields, guest and guest_nice, are also counted in the first two
    return {name: [int(field) for field in fields[:8]] for name, *fields in lines if name in usable}
