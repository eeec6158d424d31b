"""`python -m job` and `python -m serve` as a user runs them, to their end."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import fork_server
from checkout import ROOT


def job(*arguments: str | Path, cwd: Path | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
    """A process that is forked where the imports are done: half a second, and not seven."""
    with tempfile.TemporaryDirectory() as folder:
        errors = Path(folder) / "errors.txt"
        run = fork_server.shared().run(
            Path(folder), *map(str, arguments), environment=environment, cwd=cwd or ROOT, errors=errors
        )
        assert run.code is not None
        return subprocess.CompletedProcess(list(arguments), run.code, run.text(), errors.read_text())


def fresh_job(*arguments: str | Path, cwd: Path | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
    """A process from its first line on."""
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **environment}
    command = [sys.executable, "-m", "job", *map(str, arguments)]
    return subprocess.run(command, env=env, cwd=cwd or ROOT, capture_output=True, text=True, timeout=110)


def serve(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "serve", *arguments], cwd=ROOT, env={**os.environ, **environment},
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
