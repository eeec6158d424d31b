"""Decides how many threads the engine computes with. It knows the processors. It does not know torch."""

import math
import os
import re
from pathlib import Path

from serve.engine import cgroup


def count(root: Path = cgroup.ROOT, share: int = 1) -> int:
    """Return OMP_NUM_THREADS, or else the processors that this process may use by its affinity and its quota.

    A fraction of a processor counts as a whole one. More threads than the quota allows would wait for throttled ones.

    Args:
        root: see `cgroup`.
        share: the number of engines that share the processors.
    """
    if threads := _from_environment(os.environ.get("OMP_NUM_THREADS", "")):
        return threads
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = cgroup.processors(root)
    return max(1, (allowed if quota is None else min(allowed, math.ceil(quota))) // share)


def _from_environment(value: str) -> int:
    """Parse OpenMP's format: a number, or one per nesting level, the outermost first; 0 if it is invalid."""
    first = re.fullmatch(r"\s*(\d+)\s*(,[\d\s,]*)?", value)
    return int(first[1]) if first else 0
