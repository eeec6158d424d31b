"""How many threads the engine computes with. It knows the processors; it does not know torch."""

import math
import os
import re
from pathlib import Path

from serve.engine import cgroup


def count(root: Path = cgroup.ROOT, share: int = 1) -> int:
    """OMP_NUM_THREADS if it is set, or the processors that this process may use: by its affinity and its quota.

    A part of a processor counts as a whole one. More threads would wait for those that the quota holds up. `share`:
    engines that compute side by side, each with its part of the processors.
    """
    if told := _from_environment(os.environ.get("OMP_NUM_THREADS", "")):
        return told
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = cgroup.processors(root)
    return max(1, (allowed if quota is None else min(allowed, math.ceil(quota))) // share)


def _from_environment(value: str) -> int:
    """OpenMP's form: a number, or one for each level of nesting, the outermost first. Nonsense is 0, as for OpenMP."""
    first = re.fullmatch(r"\s*(\d+)\s*(,[\d\s,]*)?", value)
    return int(first[1]) if first else 0
