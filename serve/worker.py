"""The engine's process, as LitServe starts it: `AnswerAPI` and `EngineLoop`.

It knows LitServe, the link to the HTTP process and the engine. Nothing here brings torch before the engine is loaded,
since the main process imports this file too.
"""

import dataclasses
import logging
import os
import signal
import sys
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import litserve as ls
from litserve.loops import LitLoop

from serve import logs
from serve.link import EngineLink, LinkLost, Ready
from serve.messages import one_line
from serve.repository import Published
from serve.settings import Settings
from serve.shared import Shared

if TYPE_CHECKING:
    from serve.engine.engine import Engine

log = logging.getLogger(__name__)
REFUSED = 2
"""Exit code of an engine whose model cannot be served: starting it anew would not help."""
FAILED = 1
"""Exit code of an engine that was ready before and could not load the model this time."""
ALONE = 3
"""Exit code of an engine whose HTTP process is gone."""


class AnswerAPI(ls.LitAPI):
    """What LitServe carries into the engine's process."""

    def __init__(self, settings: Settings, published: Published, socket: Path, shared: Shared) -> None:
        super().__init__(stream=True, loop=EngineLoop())
        self.settings, self.published, self.socket, self.shared = settings, published, socket, shared

    def setup(self, device: str) -> None:
        """Takes no time: LitServe opens the port after it, and clients are told that the model is being loaded."""
        if self.shared.ended.is_set():
            sys.exit()  # LitServe has started this process in place of one that was ended
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to every process; the main one decides
        logs.configure(self.settings.log_json)


class EngineLoop(LitLoop):
    """Loads the model; then commands, a step, its tokens, and again. LitServe's queues stay empty."""

    def run(self, lit_api: AnswerAPI, device: str, worker_id: int, *_: Any, **__: Any) -> None:
        try:
            link = EngineLink(lit_api.socket, gone=partial(_leave, lit_api.shared))
            engine = _loaded(lit_api, device, worker_id)
            lit_api.shared.loaded[worker_id].set()
            lit_api.shared.ready[worker_id].set(os.getpid())
            ready = Ready(
                number=worker_id, pid=os.getpid(), context=engine.limits.context, vocabulary=engine.limits.vocabulary
            )
            link.send({"ready": dataclasses.asdict(ready)})
            _answer(engine, link)
        except LinkLost as error:
            log.info("engine: %s", one_line(error))
            _leave(lit_api.shared)


def _leave(shared: Shared) -> None:
    if not shared.stopping.is_set() and not shared.refused.is_set():
        log.info("engine: the HTTP process is gone, leaving")
    os._exit(ALONE)


def _loaded(lit_api: AnswerAPI, device: str, worker_id: int) -> "Engine":
    """Ends the process if the model cannot be served, or not now."""
    began = time.monotonic()  # bringing torch is a part of it, often the longest
    try:
        engine = _load(lit_api, device)
    except Exception as error:
        if lit_api.shared.loaded[worker_id].is_set():  # the model can be served; the memory may be there next time
            log.error("engine: the model could not be loaded anew: %s", one_line(error))
            sys.exit(FAILED)
        log.error("%s cannot be served: %s", lit_api.published.name, one_line(error))
        lit_api.shared.refused.set()
        sys.exit(REFUSED)
    log.info("engine: ready after %.1f s on %s", time.monotonic() - began, device)
    return engine


def _load(lit_api: AnswerAPI, device: str) -> "Engine":
    """
    Raises:
        Exception: whatever it is, the model cannot be served.
    """
    # threads that spin for milliseconds, as they do by default, keep the HTTP process on the same cores from its
    # work; with 2,000 rounds a busy neighbour costs a third of the speed and with 100,000 four fifths, but with
    # 10,000 a quiet machine is a fifth faster than with 2,000; read when torch is loaded
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")
    # oneDNN makes kernels for each number of rows and keeps 1024 of them by default, 300 MiB that fill over hours;
    # a step needs five, and with a hundred kept a soak is as fast and its memory flat
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "100")
    from serve.engine import threads
    from serve.engine.engine import Engine  # brings torch, which only this process needs
    from serve.engine.memory import free_memory
    from serve.engine.model import load
    from serve.engine.promises import broken
    from serve.engine.warmup import warm_up

    settings = lit_api.settings
    model = load(lit_api.published.folder, device, settings.dtype, threads.count(share=settings.workers))
    # engines on one device load side by side: each leaves the others as much as it takes
    memory = settings.cache_bytes or free_memory(device) // (2 * settings.workers)
    engine = Engine(model, max_rows=settings.max_running, cache_bytes=memory)
    warm_up(engine, settings.hang_seconds)
    for line in broken(model, engine.limits):
        log.warning("engine: %s", line)
    return engine


def _answer(engine: "Engine", link: EngineLink) -> None:
    """For ever.

    Raises:
        LinkLost: the HTTP process is gone.
    """
    while True:
        for command in link.commands(wait=engine.idle):
            if refusal := _carry_out(command, engine):
                link.send(refusal)
        tokens = engine.step()
        failed = [[failure.id, failure.reason] for failure in engine.failures()]
        beat = {"steps": engine.steps, "running": engine.running, "waiting": engine.waiting}
        told = [[t.id, t.token, t.finish, t.began] for t in tokens]
        link.send({"beat": beat, "tokens": told, "failed": failed})


def _carry_out(command: dict[str, Any], engine: "Engine") -> dict[str, Any] | None:
    """Gives what to tell the HTTP process if a request cannot be carried out."""
    from serve.engine.request import Request

    if "cancel" in command:
        engine.cancel(command["cancel"])
        return None
    request = Request(**command["submit"])
    try:
        engine.submit(request)
    except ValueError as error:
        return {"refused": [request.id, str(error)]}
    return None
