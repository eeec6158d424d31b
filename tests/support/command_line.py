"""`python -m job` and `python -m serve` as a user runs them, to their end."""

import os
import subprocess
import sys
from pathlib import Path

from checkout import ROOT


def job(*arguments: str | Path, cwd: Path | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **environment}
    command = [sys.executable, "-m", "job", *map(str, arguments)]
    return subprocess.run(command, env=env, cwd=cwd or ROOT, capture_output=True, text=True, timeout=110)


def serve(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "serve", *arguments], cwd=ROOT, env={**os.environ, **environment},
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
