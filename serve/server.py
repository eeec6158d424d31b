"""The main process: starts the other processes through LitServe, watches the engines (`watch.py`), and ends them all.

LitServe starts one engine per device and one process that answers HTTP, and restarts an engine that died. This module
adds what LitServe lacks, through its public names only: a limit on restarts, exit codes, a graceful shutdown, and any
address to listen on. It knows processes and signals. It does not know routes or models.
"""

import logging
import multiprocessing
import os
import signal
import socket
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from multiprocessing.process import BaseProcess
from pathlib import Path

import litserve as ls
from fastapi import FastAPI

from serve.engine.device import accelerators
from serve.http import grounded_routes, retriever_routes, retriever_schema
from serve.http.app import open_state
from serve.http.closing import Closing
from serve.http.connection import connection, stop_listening
from serve.http.routes import add_routes
from serve.messages import one_line
from serve.repository import Published
from serve.settings import Settings
from serve.shared import Shared
from serve.watch import DIED, Watch
from serve.worker import REFUSED, AnswerAPI

log = logging.getLogger(__name__)
PARENT_SECONDS = 0.2
"""Between two checks that the main process is alive."""
STOPPED_NOW = 130
"""Exit code after a second Ctrl-C, the one that shells use."""
BACKLOG = 2048
"""Connections that the system holds until they are accepted; uvicorn's default."""
GRACE_SECONDS = 5
"""Added to --drain-seconds before LitServe kills the HTTP process."""


class Server:
    """The server from start to end; `run` is called once."""

    def __init__(self, settings: Settings, published: Published, listener: socket.socket) -> None:
        """Prepare LitServe; no process is started yet.

        Args:
            settings: what the options say.
            published: the model to serve.
            listener: a bound socket, see `listen`.
        """
        self.settings, self.listener = settings, listener
        devices = accelerators(settings.device)
        self.shared = Shared(engines=len(devices) * settings.workers)
        self.exit_code = 0
        self._folder = tempfile.TemporaryDirectory(prefix="kickoff-")
        path = Path(self._folder.name) / "engine"
        self.litserve = ls.LitServer(
            AnswerAPI(settings, published, path, self.shared),
            accelerator=devices[0].partition(":")[0],
            devices=1 if devices == ["cpu"] else [int(device.partition(":")[2]) for device in devices],
            workers_per_device=settings.workers,
            restart_workers=True,
            timeout=False,
        )
        self.litserve.app = _app(settings, published, path, self.shared, listener)
        self.litserve.uvicorn_graceful_timeout = int(settings.drain_seconds) + GRACE_SECONDS

    def run(self) -> int:
        """Run until a signal or an error.

        Returns:
            The exit code: 0 after a signal, else the reason of `watch.py` or of LitServe's failure.
        """
        signal.signal(signal.SIGTERM, self._stop)
        signal.signal(signal.SIGINT, self._stop)
        os.register_at_fork(after_in_child=_exit_with_main_process)
        watch = Watch(self.settings.hang_seconds, self.shared, self._engines, self._give_up)
        try:
            threading.Thread(target=watch.run, name="watch", daemon=True).start()
            self.litserve.run(
                # LitServe accepts three hosts and not every port: the socket is ours, and these two are ignored
                host="127.0.0.1",
                port=8000,
                fd=self.listener.fileno(),
                num_api_servers=1,
                log_level="warning",
                log_config=None,  # uvicorn's lines go into our log
                access_log=False,
                http=connection(self.settings, self.listener),
                timeout_keep_alive=self.settings.keep_alive,
                generate_client_file=False,
                server_header=False,
            )
        except KeyboardInterrupt:
            log.info("stopped while starting")  # LitServe's run() was not ready for one
        except (OSError, EOFError, RuntimeError) as error:  # RuntimeError: no thread could be started
            self._report_failure(error)
        finally:
            self._kill_all()
        return self.exit_code

    def _report_failure(self, error: Exception) -> None:
        """Set the exit code after LitServe's run() has failed: the system refused something, or a process is gone."""
        if self.shared.was_ready():
            self.exit_code = self.exit_code or DIED
            log.error("server: %s, exiting", one_line(error))
        else:
            self.exit_code = self.exit_code or REFUSED
            log.error(
                "server: its processes could not be started (%s); raise the limit that it met: processes "
                "(ulimit -u, the container's limit), open files (ulimit -n) or memory", one_line(error)
            )  # fmt: skip

    def _stop(self, *_: object) -> None:
        """Report not ready at once, wait for load balancers to notice (--drain-delay), and shut down."""
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # a second SIGTERM means no more than the first
        signal.signal(signal.SIGINT, self._stop_now)
        if not self.exit_code:
            log.info("stopping: running requests have %.0f s to finish", self.settings.drain_seconds)
            self.shared.stopping.set()
            time.sleep(self.settings.drain_delay)
        raise KeyboardInterrupt  # LitServe's run() then shuts down gracefully

    def _stop_now(self, *_: object) -> None:
        """End at once, after a second Ctrl-C."""
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        log.info("stopping at once: running requests are cut off")
        self._kill_all()
        os._exit(STOPPED_NOW)

    def _kill_all(self) -> None:
        self.shared.ended.set()
        for process in multiprocessing.active_children():
            process.kill()
        self._folder.cleanup()

    def _engines(self) -> Sequence[BaseProcess]:
        """The engines' processes; empty until LitServe has started them."""
        return getattr(self.litserve, "inference_workers", [])

    def _give_up(self, code: int, reason: str) -> None:
        if self.shared.stopping.is_set():
            return
        if not self.shared.refused.is_set():
            log.error("server: %s, exiting", reason)
        self.exit_code = code
        self.shared.stopping.set()
        os.kill(os.getpid(), signal.SIGTERM)  # LitServe's run() is in the main thread


def listen(host: str, port: int) -> socket.socket:
    """Bind a socket without listening on it yet.

    Args:
        host: a name or an address.
        port: 0 is any free port.

    Raises:
        OSError: the address is not available.
    """
    family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    listener = socket.socket(family, kind, protocol)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    # connections inherit it: without it, a stream's small packets would wait for each other
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    listener.bind(address)
    return listener


def _app(settings: Settings, published: Published, path: Path, shared: Shared, listener: socket.socket) -> FastAPI:
    """Make the application that replaces LitServe's, whose routes read queues that nobody fills."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with open_state(settings, published, path, shared) as state:
            app.state.kickoff = state
            _listen(listener, shared)
            yield
        stop_listening(listener)

    app = FastAPI(lifespan=lifespan, title="Kickoff", description=f"Answers from {published.name}.")
    if published.is_retriever:
        add_routes(app, settings, retriever_routes.router, retriever_schema.BODIES)
    elif published.is_grounded:
        add_routes(app, settings, grounded_routes.router, grounded_routes.BODIES)
    else:
        add_routes(app, settings)
    app.add_middleware(Closing)
    return app


def _listen(listener: socket.socket, shared: Shared) -> None:
    """Listen before uvicorn does, which would fail with a traceback: two servers can bind a port until one listens."""
    try:
        listener.listen(BACKLOG)
    except OSError as error:
        log.error("server: %s: %s; choose a free port with --port", listener.getsockname(), error)
        shared.refused.set()
        os._exit(REFUSED)


def _exit_with_main_process() -> None:
    """End this process once the main one is gone: LitServe's queue manager would stay for ever."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # the inherited handlers belong to the main process
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = os.getppid()

    def wait() -> None:
        while os.getppid() == parent:
            time.sleep(PARENT_SECONDS)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=wait, name="parent", daemon=True).start()
