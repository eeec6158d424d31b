"""Runs of the job without the seconds that the imports take: started, killed, run again, each a process of its own."""

import atexit
import functools
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from checkout import ROOT

LONGEST_SECONDS = 110


class Run:
    """A process of the job, started by the fork server."""

    def __init__(self, output: Path, notes: Path) -> None:
        self.pid, self.code = 0, None
        self.output, self.notes = output, notes
        self.started, self.ended = threading.Event(), threading.Event()

    def wait(self) -> int:
        assert self.ended.wait(LONGEST_SECONDS), f"still running: {self.text()}"
        assert self.code is not None
        return self.code

    def signal(self, number: int) -> bool:
        """Whether it was still there to get it."""
        if self.ended.is_set():
            return False
        try:
            os.kill(self.pid, number)
        except ProcessLookupError:
            return False
        return True

    def text(self) -> str:
        return self.output.read_text() if self.output.exists() else ""

    def last_line(self) -> str:
        return (self.text().splitlines() or [""])[-1]

    def phases(self) -> list[str]:
        """What has begun and ended so far: "begin train", "end train", ..."""
        return self.notes.read_text().splitlines() if self.notes.exists() else []

    def until(self, condition: Callable[[], bool]) -> bool:
        """Wait for a condition; False if the run ended before."""
        deadline = time.monotonic() + LONGEST_SECONDS
        while not condition():
            if self.ended.is_set():
                return condition()
            assert time.monotonic() < deadline, self.text()
            time.sleep(0.001)
        return True


class ForkServer:
    def __init__(self) -> None:
        self.environment = {
            "PYTHONPATH": f"{ROOT}:{ROOT}/tests/support", "HF_HUB_DISABLE_XET": "1",
            "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false",
        }  # fmt: skip
        self._process = subprocess.Popen(
            [sys.executable, str(ROOT / "tests/support/fork_process.py")],
            env={**os.environ, **self.environment},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        self._runs: list[Run] = []
        self._lock = threading.Lock()
        threading.Thread(target=self._listen, daemon=True).start()

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()

    def start(
        self, folder: Path, *arguments: str, environment: dict[str, str] | None = None, cwd: Path = ROOT,
        program: str = "job", errors: Path | None = None, **fault: Any,
    ) -> Run:  # fmt: skip
        """`python -m job ARGUMENTS`, or another program; what it says goes into `folder`, or in part into `errors`."""
        with self._lock:
            number = len(self._runs)
            run = Run(folder / f"output-{number}.txt", folder / f"phases-{number}.txt")
            self._runs.append(run)
            order = {
                "id": number,
                "program": program,
                "arguments": arguments,
                "environment": {**os.environ, **self.environment, **(environment or {})},
                "cwd": str(cwd),
                "output": str(run.output),
                "errors": str(errors or ""),
                "notes": str(run.notes),
                **fault,
            }
            assert self._process.stdin is not None
            self._process.stdin.write(json.dumps(order).encode() + b"\n")
            self._process.stdin.flush()
        assert run.started.wait(LONGEST_SECONDS)
        return run

    def run(self, folder: Path, *arguments: str, **options: Any) -> Run:
        """The same, to its end."""
        started = self.start(folder, *arguments, **options)
        started.wait()
        return started

    def _listen(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            answer = json.loads(line)
            run = self._runs[answer["id"]]
            if "pid" in answer:
                run.pid = answer["pid"]
                run.started.set()
            else:
                run.code = answer["code"]
                run.ended.set()


@functools.cache
def shared() -> ForkServer:
    """The one of this test process."""
    server = ForkServer()
    atexit.register(server.close)
    return server
