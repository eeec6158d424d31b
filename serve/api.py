"""The LitServe module: one process that answers HTTP, one that runs the engine, and the main one that looks after both.

LitServe starts and holds the processes. What it leaves open is added here: the port opens while the model loads, a
dead engine is started anew (a few times, then the server leaves with an error), and SIGTERM lets running requests
finish. It knows processes and signals; it does not know routes, which `routes.py` makes, nor models.
"""

import dataclasses
import logging
import multiprocessing
import os
import signal
import sys
import tempfile
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from multiprocessing.connection import wait
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import litserve as ls
from fastapi import FastAPI
from litserve.loops.base import LitLoop
from litserve.transport import MPQueueTransport

from serve import logs
from serve.engine.device import accelerators
from serve.engine.messages import one_line
from serve.http.closing import Closing
from serve.http.connection import connection
from serve.link import BEAT_SECONDS, EngineLink
from serve.repository import Published
from serve.routes import add_routes
from serve.serving import run_beside
from serve.settings import Settings

log = logging.getLogger(__name__)
STARTED_ANEW_AT_MOST = 3
WITHIN_SECONDS = 300.0
STOPPED_NOW = 130
"""Exit code after a second Ctrl-C, as shells have it."""
REFUSED = 2
"""Exit code of an engine whose model cannot be served: starting it anew would not help."""


class AnswerAPI(ls.LitAPI):
    """The engine's process: `setup` loads the model, `EngineLoop` runs it."""

    def __init__(self, settings: Settings, published: Published, socket: Path) -> None:
        super().__init__(stream=True, loop=EngineLoop())
        self.settings, self.published, self.socket = settings, published, socket

    def setup(self, device: str) -> None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to every process; the main one decides
        logs.configure(self.settings.log_json)
        # threads that spin for milliseconds, as they do by default, keep the HTTP process on the same cores from its
        # work; with 2,000 rounds a busy neighbour costs a third of the speed and with 100,000 four fifths, but with
        # 10,000 a quiet machine is a fifth faster than with 2,000; read when torch is loaded
        os.environ.setdefault("GOMP_SPINCOUNT", "10000")
        # oneDNN makes kernels for each number of rows and keeps 1024 of them by default, 300 MiB that fill over hours;
        # a step needs five, and with a hundred kept a soak is as fast and its memory flat
        os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "100")
        from serve.engine.engine import Engine  # brings torch, which only this process needs
        from serve.engine.memory import free_memory
        from serve.engine.model import load
        from serve.engine.promises import broken

        began = time.monotonic()
        self.link = EngineLink(self.socket)
        try:
            model = load(self.published.folder, device, self.settings.dtype)
            memory = self.settings.cache_bytes or free_memory(device) // 2
            self.engine = Engine(model, max_rows=self.settings.max_running, cache_bytes=memory)
            self.engine.warm_up()
            for line in broken(model, self.engine.limits):
                log.warning("engine: %s", line)
        except Exception as error:  # whatever it is, the model cannot be served
            log.error("%s cannot be served: %s", self.published.name, one_line(error))
            sys.exit(REFUSED)
        self.link.send({"ready": {**dataclasses.asdict(self.engine.limits), "device": device, "pid": os.getpid()}})
        log.info("engine: ready after %.1f s on %s", time.monotonic() - began, device)


class EngineLoop(LitLoop):
    """Commands, a step, its tokens, and again; LitServe's queues stay empty."""

    def run(self, lit_api: AnswerAPI, *args: Any, **kwargs: Any) -> None:
        engine, link = lit_api.engine, lit_api.link
        started: dict[str, float] = {}
        try:
            while True:
                for command in link.commands(wait=engine.idle):
                    if refusal := _carry_out(command, engine, started):
                        link.send(refusal)
                now = time.monotonic()
                tokens = engine.step()
                for token in tokens:
                    started.setdefault(token.id, now)
                failed = [[failure.id, failure.reason] for failure in engine.failures()]
                beat = {"steps": engine.steps, "running": engine.running, "waiting": engine.waiting}
                told = [[t.id, t.token, t.finish, started[t.id]] for t in tokens]
                link.send({"beat": beat, "tokens": told, "failed": failed})
                for id in [token.id for token in tokens if token.finish] + [id for id, _ in failed]:
                    started.pop(id, None)
        except (EOFError, OSError):
            log.info("engine: the HTTP process is gone, leaving")
            os._exit(0)


def _carry_out(command: dict[str, Any], engine: Any, started: dict[str, float]) -> dict[str, Any] | None:
    """Gives what to tell the HTTP process if a request cannot be carried out."""
    from serve.engine.request import Request

    if "cancel" in command:
        engine.cancel(command["cancel"])
        started.pop(command["cancel"], None)
        return None
    request = Request(**command["submit"])
    try:
        engine.submit(request)
    except ValueError as error:
        return {"refused": [request.id, str(error)]}
    return None


class Server(ls.LitServer):
    """LitServe's server with our routes, our way of starting, watching and stopping. `exit_code` says how it ended."""

    def __init__(self, settings: Settings, published: Published) -> None:
        self.settings, self.published = settings, published
        self.exit_code = 0
        self._pid = os.getpid()
        self.stopping = multiprocessing.get_context("fork").Event()
        self.has_been_ready = multiprocessing.get_context("fork").Event()
        self._http: list[Any] = []
        self._folder = tempfile.TemporaryDirectory(prefix="kickoff-")
        self.socket = Path(self._folder.name) / "engine"
        api = AnswerAPI(settings, published, self.socket)
        self.inference_workers: list[Any] = []
        super().__init__(api, accelerator=accelerators(settings.device)[0].partition(":")[0], devices=1, timeout=False)
        self.uvicorn_graceful_timeout = int(settings.drain_seconds) + 5

    def register_endpoints(self) -> None:
        """Our routes in the place of LitServe's."""
        self.app = FastAPI(lifespan=self.lifespan, title="Kickoff", description=f"Answers from {self.published.name}.")
        add_routes(self.app, self.settings)
        self.app.add_middleware(Closing)

    @asynccontextmanager
    async def lifespan(self, app: FastAPI) -> AsyncIterator[None]:
        """Of the HTTP process; LitServe's own would poll queues that nobody fills."""
        async with run_beside(
            self.settings, self.published, self.socket, self.stopping, self.has_been_ready
        ) as serving:
            app.state.serving = serving
            yield

    def serve(self) -> int:
        """Run until a signal or an error; the exit code."""
        signal.signal(signal.SIGTERM, self._stop)
        signal.signal(signal.SIGINT, self._stop)
        try:
            self.run(
                host=self.settings.host,
                port=self.settings.port,
                num_api_servers=1,
                log_level="warning",
                log_config=None,  # uvicorn's lines go where ours go
                access_log=False,
                http=connection(self.settings),
                timeout_keep_alive=self.settings.keep_alive,
                generate_client_file=False,
                server_header=False,
            )
        except SystemExit:
            self.exit_code = REFUSED  # the port cannot be had; uvicorn has said why
        except KeyboardInterrupt:
            log.info("stopped while it started")  # LitServe's run() was not ready for one
        finally:
            self._kill_all()
            self._folder.cleanup()
        return self.exit_code

    def _stop(self, *_: object) -> None:
        """Readiness goes off at once; after a pause, in which load balancers notice, the port closes."""
        if os.getpid() != self._pid:
            return  # the HTTP process has inherited this handler; uvicorn calls it when it has shut down
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # who sends it twice does not mean more by it
        signal.signal(signal.SIGINT, self._stop_now)
        log.info("stopping: running requests have %.0f s to finish", self.settings.drain_seconds)
        self.stopping.set()
        time.sleep(self.settings.drain_delay)
        raise KeyboardInterrupt  # what LitServe's run() takes for the word to shut down gracefully

    def _stop_now(self, *_: object) -> None:
        """A second Ctrl-C: whoever types it has waited enough."""
        if os.getpid() != self._pid:
            return
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        log.info("stopping at once: running requests are cut off")
        self._kill_all()
        self._folder.cleanup()
        os._exit(STOPPED_NOW)

    def _kill_all(self) -> None:
        for process in multiprocessing.active_children():
            process.kill()

    def _start_server(self, port: int, count: int, log_level: str, sockets: Any, *rest: Any, **options: Any) -> Any:
        """Only the HTTP process keeps the port open: while this one did, a client was let in that nobody answers."""
        workers = super()._start_server(port, count, log_level, sockets, *rest, **options)
        self._http = list(workers.values())
        for socket in sockets:
            socket.close()
        return workers

    def _init_manager(self, num_api_servers: int) -> Any:
        """No manager: it is a process for LitServe's queues, which stay empty here, and outlives a killed server."""
        self._shutdown_event = threading.Event()
        self._transport = MPQueueTransport(None, [])
        self.workers_setup_status: dict[str, str] = {}
        self.litapi_request_queues = {self.lit_api.api_path: None}
        return SimpleNamespace(shutdown=lambda: None)

    def verify_worker_status(self) -> None:
        """Do not wait: the port opens now and readiness tells. LitServe would wait for ever for a dead worker."""

    def _start_worker_monitoring(self, manager: Any, uvicorn_workers: dict[int, Any]) -> None:
        threading.Thread(target=self._watch, name="watch", daemon=True).start()

    def _watch(self) -> None:
        """Start a dead engine anew; end the server when that does not help, or when the HTTP process is dead."""
        starts: list[float] = []
        while not self.stopping.is_set():
            processes = [*self._http, *self.inference_workers]
            wait([process.sentinel for process in processes], timeout=BEAT_SECONDS)
            if self.stopping.is_set():
                return
            if not all(process.is_alive() for process in self._http):
                self._give_up(1 if self._was_ready() else REFUSED, "the HTTP process died")
                return
            (engine,) = self.inference_workers
            if engine.is_alive():
                continue
            if not self._was_ready():
                killed = ", most likely for memory" if engine.exitcode == -signal.SIGKILL else ""
                self._give_up(REFUSED, f"the engine ended (exit code {engine.exitcode}{killed}) before it was ready")
                return
            now = time.monotonic()
            starts = [at for at in starts if now - at < WITHIN_SECONDS] + [now]
            if len(starts) > STARTED_ANEW_AT_MOST:
                self._give_up(1, f"the engine died {len(starts)} times in {WITHIN_SECONDS:.0f} s")
                return
            log.error("engine: died (exit code %s), starting it anew", engine.exitcode)
            self.inference_workers = [self.launch_single_inference_worker(self.lit_api, 0)]

    def _was_ready(self) -> bool:
        return self.has_been_ready.wait(1)  # the HTTP process tells, perhaps a moment after the engine was seen dead

    def _give_up(self, code: int, reason: str) -> None:
        log.error("server: %s, leaving", reason)
        self.exit_code = code
        self.stopping.set()
        self._shutdown_event.set()
