"""Waiting: how long a thread of torch's spins for the others before it sleeps.

On every matrix product torch's threads wait for each other. By default they spin for milliseconds, which on a machine
with other work takes the processor from those that are waited for. Sleeping at once loses a tenth of the speed where
nothing else runs. `make bench-shared` measures what lies between.

It knows an environment variable of OpenMP, which is read when torch is loaded, and so it imports nothing of torch.
"""

import os

SPINS = "10000"
"""Rounds of a waiting thread before it sleeps (GNU's OpenMP, which torch's wheels for Linux bring)."""


def choose() -> None:
    """Bound the spinning, unless the environment says how to wait. To be called before torch is imported."""
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", SPINS)
