"""Process: starts servers, waits until they are ready, measures them, and stops them with all their children.

It knows processes. It does not know what they serve. It ends only processes that it started.
"""

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType

import psutil

from bench.model import ROOT
from bench.serve.client import Connection

READY_SECONDS = 120.0
STOP_SECONDS = 20.0
ENVIRONMENT = {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "PYTHONPATH": str(ROOT)}


def free_port() -> int:
    """Return a free port of the loopback."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def stop_servers_on_exit() -> None:
    """Make SIGTERM raise SystemExit, so that the started servers are stopped."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))


class Server:
    """A server process within `async with`: ready on entry, stopped on exit; its output goes to `log`."""

    def __init__(self, command: list[str], port: int, health: str, log: Path) -> None:
        self.command, self.port, self.health, self.log = command, port, health, log
        self.ready_seconds = 0.0

    async def __aenter__(self) -> "Server":
        began = time.perf_counter()
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("wb") as out:
            self._process = subprocess.Popen(  # noqa: S603 - our own commands
                self.command, cwd=ROOT, env={**os.environ, **ENVIRONMENT}, stdout=out, stderr=subprocess.STDOUT
            )
        try:
            await self._wait_ready(began)
        except BaseException:
            self._stop()
            raise
        self.ready_seconds = time.perf_counter() - began
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        await asyncio.to_thread(self._stop)

    async def _wait_ready(self, began: float) -> None:
        connection = Connection(self.port)
        while time.perf_counter() - began < READY_SECONDS and self._process.poll() is None:
            with contextlib.suppress(OSError, EOFError, ValueError):
                if (await connection.ask("GET", self.health)).status == 200:
                    return connection.close()
            await asyncio.sleep(0.02)
        raise RuntimeError(f"{' '.join(self.command)} is not ready; see {self.log}")

    def family(self) -> list[psutil.Process]:
        """Return the server's processes, the started one first."""
        first = psutil.Process(self._process.pid)
        return [first, *first.children(recursive=True)]

    def by_role(self) -> dict[str, psutil.Process]:
        """Return the processes by role and id: main, http (forked, with main's command line), engine and tracker."""
        first, *others = self.family()
        roles = {f"main {first.pid}": first}
        for process in others:
            called = " ".join(process.cmdline())
            kind = "tracker" if "resource_tracker" in called else "engine" if "spawn_main" in called else "http"
            roles[f"{kind} {process.pid}"] = process
        return roles

    def _stop(self) -> None:
        """Send SIGTERM to the first process, then kill those left after a while: LitServe leaves its workers."""
        with contextlib.suppress(psutil.NoSuchProcess):
            family = self.family()
            self._process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(STOP_SECONDS)
            for process in family:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()  # psutil has checked that the id has not passed to another process
            psutil.wait_procs(family, timeout=5)
        self._process.wait()


class Busy:
    """Measures the processor time since `open`, in percent of all cores: server, client, others."""

    def __init__(self, server: list[psutil.Process]) -> None:
        self.server, self.client = server, [psutil.Process()]
        self.open()

    def open(self) -> None:
        """Start the measurement."""
        self._before = self._read()

    def shares(self) -> dict[str, float]:
        """Return the percentages since `open`."""
        passed, *used = (last - first for last, first in zip(self._read(), self._before, strict=True))
        server, client, everyone = (round(seconds / passed / (os.cpu_count() or 1) * 100, 1) for seconds in used)
        return {
            "cpu_server": server,
            "cpu_client": client,
            "cpu_others": round(max(0.0, everyone - server - client), 1),
        }

    def _read(self) -> list[float]:
        return [time.perf_counter(), _cpu_seconds(self.server), _cpu_seconds(self.client), _machine_cpu_seconds()]


def _cpu_seconds(processes: list[psutil.Process]) -> float:
    """Return the processor time that the processes have used so far."""
    total = 0.0
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            times = process.cpu_times()
            total += times.user + times.system
    return total


def _machine_cpu_seconds() -> float:
    """Return the processor time that all processes of this machine, and other guests of its host, have used."""
    times = psutil.cpu_times()
    return float(sum(times) - times.idle - times.iowait - getattr(times, "guest", 0) - getattr(times, "guest_nice", 0))
