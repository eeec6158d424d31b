"""Server processes: started, waited for, looked at, and stopped with all that they have started.

It knows processes. It does not know what they serve. Only processes that it started are ended.
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
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def stop_servers_with_us() -> None:
    """SIGTERM ends this process as an exception does, so that what it has started is stopped."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))


class Server:
    """A command that serves on `port`; ready when it is entered, gone when it is left. What it prints goes to `log`."""

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
        """The processes that run now, the one that was started first."""
        first = psutil.Process(self._process.pid)
        return [first, *first.children(recursive=True)]

    def by_role(self) -> dict[str, psutil.Process]:
        """The same by name and id: main, http (forked, so it is called like main), engine and tracker (spawned)."""
        first, *others = self.family()
        roles = {f"main {first.pid}": first}
        for process in others:
            called = " ".join(process.cmdline())
            kind = "tracker" if "resource_tracker" in called else "engine" if "spawn_main" in called else "http"
            roles[f"{kind} {process.pid}"] = process
        return roles

    def _stop(self) -> None:
        """SIGTERM to the first; whoever is left after a while is killed: LitServe leaves its workers behind."""
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
    """Who used the processors since `open`, in hundredths of all cores: server, client, others."""

    def __init__(self, server: list[psutil.Process]) -> None:
        self.server, self.client = server, [psutil.Process()]
        self.open()

    def open(self) -> None:
        self._before = self._read()

    def shares(self) -> dict[str, float]:
        passed, *used = (now - before for now, before in zip(self._read(), self._before, strict=True))
        server, client, everyone = (round(seconds / passed / (os.cpu_count() or 1) * 100, 1) for seconds in used)
        return {
            "cpu_server": server,
            "cpu_client": client,
            "cpu_others": round(max(0.0, everyone - server - client), 1),
        }

    def _read(self) -> list[float]:
        return [time.perf_counter(), _cpu_seconds(self.server), _cpu_seconds(self.client), _machine_cpu_seconds()]


def _cpu_seconds(processes: list[psutil.Process]) -> float:
    """Processor time that they have used so far."""
    total = 0.0
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            times = process.cpu_times()
            total += times.user + times.system
    return total


def _machine_cpu_seconds() -> float:
    """Processor time that all processes of this machine, and its neighbours on the same host, have used."""
    times = psutil.cpu_times()
    return float(sum(times) - times.idle - times.iowait - getattr(times, "guest", 0) - getattr(times, "guest_nice", 0))
