"""Waiting: whether a thread of torch's spins for the others before it sleeps.

On every matrix product torch's threads wait for each other. By default they spin for milliseconds. Where other
processes need the processors too, that takes the time from the very threads that are waited for. A short spin costs
nothing on a quiet machine; on a busy one, sleeping at once is better still, and costs an eighth of the quiet speed
(`make bench-shared`). OpenMP reads its settings once, when torch is loaded, so the load of that moment decides.

It knows two environment variables of GNU's OpenMP, which torch's wheels for Linux bring, and Linux's count of what each
processor did. It does not know a load that comes later: for that the spin is short.
"""

import logging
import os
import time
from pathlib import Path

log = logging.getLogger(__name__)
STAT = Path("/proc/stat")
SPINS = "10000"
"""Rounds that a waiting thread spins on a quiet machine before it sleeps."""
SECONDS = 0.25
"""How long the processors are watched; the count goes by hundredths of a second."""
BUSY = 0.5
"""Processors' worth of other work from which on a thread sleeps at once. One busy process is 1."""
IDLE = (3, 4)
"""The fields of a processor's line that count its time without work: idle, and idle with a disk at work."""


def choose() -> None:
    """Set how threads wait, unless the environment says so already. To be called before torch is imported."""
    if {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"} & os.environ.keys():
        return
    if (busy := others()) >= BUSY:
        os.environ["OMP_WAIT_POLICY"] = "passive"
        log.info("other processes use %.1f of this machine's processors: torch's threads sleep while they wait", busy)
    else:
        os.environ["GOMP_SPINCOUNT"] = SPINS


def others() -> float:
    """The work of other processes on the processors that this one may use, in processors; 0 where it is not known."""
    try:
        earlier = _ticks()
        time.sleep(SECONDS)
        later = _ticks()
    except (OSError, ValueError, AttributeError):  # not Linux
        return 0.0
    busy = 0.0
    for name, fields in later.items():
        passed = [now - before for now, before in zip(fields, earlier[name], strict=True)]
        if sum(passed):
            busy += 1 - sum(passed[field] for field in IDLE) / sum(passed)
    return busy


def _ticks() -> dict[str, list[int]]:
    """What each processor that this process may use has done until now, field by field."""
    usable = {f"cpu{number}" for number in os.sched_getaffinity(0)}
    lines = [line.split() for line in STAT.read_text(encoding="ascii").splitlines()]
    # the last two fields, guests, are counted among the first two as well
    return {name: [int(field) for field in fields[:8]] for name, *fields in lines if name in usable}
