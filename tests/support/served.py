"""The server as a user runs it: a process of its own, asked over HTTP. And the models it serves in the tests."""

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType

import httpx2
import psutil
from checkout import ROOT
from prometheus_client.parser import text_string_to_metric_families

READY_SECONDS = 60


class Served:
    """`python -m serve FOLDER ...` on a free port of the loopback; ready when it is entered, gone when it is left."""

    def __init__(
        self, folder: Path | str, *options: str, python: Path | str = sys.executable, **environment: str
    ) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.key = environment.get("KICKOFF_API_KEY", "")
        self._command = [str(python), "-m", "serve", str(folder), "--port", str(self.port), *options]
        self._environment = {**os.environ, "PYTHONPATH": str(ROOT), **environment}

    def __enter__(self) -> "Served":
        self.start()
        self.wait_ready()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()

    def start(self) -> None:
        # a file, since a pipe that nobody reads holds the server up after some hundred lines of its log
        self._log = tempfile.TemporaryFile("w+")  # noqa: SIM115 - read after the process has ended
        self.process = subprocess.Popen(
            self._command, env=self._environment, cwd=ROOT, stdout=self._log, stderr=subprocess.STDOUT, text=True,
            start_new_session=True,
        )  # fmt: skip

    def wait_ready(self) -> None:
        give_up = time.monotonic() + READY_SECONDS
        while time.monotonic() < give_up and self.process.poll() is None:
            with suppress(httpx2.TransportError):
                if httpx2.get(f"{self.url}/health/ready").status_code == 200:
                    return
            time.sleep(0.05)
        self.stop()
        raise AssertionError(f"the server is not ready; it said:\n{self.output()}")

    def metric(self, name: str, **labels: str) -> float:
        """The value now; the sum over all labels that are not given."""
        page = httpx2.get(f"{self.url}/metrics", headers={"X-API-Key": self.key}, timeout=30).text
        samples = [sample for family in text_string_to_metric_families(page) for sample in family.samples]
        return sum(
            sample.value for sample in samples if sample.name == name and labels.items() <= sample.labels.items()
        )

    def children(self) -> dict[str, psutil.Process]:
        """The processes that answer HTTP ("http") and run an engine ("engine", "engine 1" ...), by what they do."""
        found: dict[str, psutil.Process] = {}
        for child in psutil.Process(self.process.pid).children():
            with suppress(psutil.NoSuchProcess):  # it has just ended
                if any(str(connection.laddr).endswith("/engine") for connection in child.net_connections("unix")):
                    found["http"] = child
                elif "spawn_main" in " ".join(child.cmdline()) and child.memory_info().rss > 150 * 2**20:
                    found[f"engine {len(found)}" if "engine" in found else "engine"] = child
        return found

    def stop(self) -> int:
        """SIGTERM, and SIGKILL to all that is left after half a minute; the exit code."""
        if self.process.poll() is None:
            self.process.terminate()
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(30)
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        return self.process.wait(10)

    def output(self) -> str:
        """All that was printed so far. The place at which the server writes on is its own, and stays."""
        number = self._log.fileno()
        return os.pread(number, os.fstat(number).st_size, 0).decode()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
