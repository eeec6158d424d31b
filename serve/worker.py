"""Runs an engine in the process that LitServe starts for it: `AnswerAPI` and `EngineLoop`.

It knows LitServe, the link to the HTTP process and the engines, a generator's and a retriever's. It imports torch only
when it loads the engine, since the main process imports this file too.
"""

import dataclasses
import logging
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import litserve as ls
from litserve.loops import LitLoop

from serve import logs
from serve.engine.request import Request, Token
from serve.engine_link import EngineLink, LinkLost
from serve.grounding import FOLDER
from serve.link import Ready
from serve.messages import one_line
from serve.repository import Published
from serve.retriever.request import Done
from serve.retriever.request import Request as RetrieverRequest
from serve.settings import Settings
from serve.shared import Shared

if TYPE_CHECKING:
    from serve.engine.engine import Engine
    from serve.engine.grounded import GroundedEngine
    from serve.retriever.engine import RetrieverEngine

    AnyEngine = Engine | GroundedEngine | RetrieverEngine

log = logging.getLogger(__name__)
REFUSED = 2
"""Exit code of an engine whose model cannot be served: a restart would not help."""
FAILED = 1
"""Exit code of an engine that has been ready before and failed to load the model this time."""
HTTP_GONE = 3
"""Exit code of an engine whose HTTP process is gone."""


class AnswerAPI(ls.LitAPI):
    """What LitServe hands to the engine's process."""

    def __init__(self, settings: Settings, published: Published, socket: Path, shared: Shared) -> None:
        super().__init__(stream=True, loop=EngineLoop())
        self.settings, self.published, self.socket, self.shared = settings, published, socket, shared

    def setup(self, device: str) -> None:
        """Prepare the process without loading the model.

        LitServe opens the port only after this returns; clients can then be told that the model is being loaded.
        """
        if self.shared.ended.is_set():
            sys.exit()  # LitServe has restarted a process that the main process ended
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to every process; the main one decides
        logs.configure(self.settings.log_json)


class EngineLoop(LitLoop):
    """Loads the model, then repeats: read commands, compute a step, send its tokens. LitServe's queues stay empty."""

    def run(self, lit_api: AnswerAPI, device: str, worker_id: int, *_: Any, **__: Any) -> None:
        """Run the engine numbered `worker_id` until its process ends."""
        try:
            link = EngineLink(lit_api.socket, gone=partial(_leave, lit_api.shared))
            engine = _load_or_exit(lit_api, device, worker_id)
            lit_api.shared.loaded[worker_id].set()
            lit_api.shared.ready[worker_id].set(os.getpid())
            limits = engine.limits
            ready = Ready(worker_id, os.getpid(), limits.context, limits.vocabulary)
            link.send({"ready": dataclasses.asdict(ready)})
            _run_steps(engine, link)
        except LinkLost as error:
            log.info("engine: %s", one_line(error))
            _leave(lit_api.shared)


def _leave(shared: Shared) -> None:
    if not shared.stopping.is_set() and not shared.refused.is_set():
        log.info("engine: the HTTP process is gone, exiting")
    os._exit(HTTP_GONE)


def _load_or_exit(lit_api: AnswerAPI, device: str, worker_id: int) -> "AnyEngine":
    """Load the engine, or end the process if that fails."""
    began = time.monotonic()  # importing torch is a part of it, often the longest
    try:
        engine = _load(lit_api, device)
    except Exception as error:
        if lit_api.shared.loaded[
            worker_id
        ].is_set():  # the model itself can be served; next time there may be enough memory
            log.error("engine: the model could not be reloaded: %s", one_line(error))
            sys.exit(FAILED)
        log.error("%s cannot be served: %s", lit_api.published.name, one_line(error))
        lit_api.shared.refused.set()
        sys.exit(REFUSED)
    log.info("engine: ready after %.1f s on %s", time.monotonic() - began, device)
    return engine


def _load(lit_api: AnswerAPI, device: str) -> "AnyEngine":
    """Load the model and warm up its engine.

    Raises:
        Exception: of any class; the model cannot be served.
    """
    # By default OpenMP threads spin for milliseconds, which takes the cores from the HTTP process. A busy neighbour
    # costs a third of the speed at 2,000 rounds and four fifths at 100,000, but a quiet machine is a fifth faster at
    # 10,000 than at 2,000. torch reads the variable when it is imported.
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")
    # oneDNN makes kernels for each number of rows and caches 1024 of them by default, 300 MiB after some hours. A step
    # needs five; with a cache of 100 a soak test is as fast and its memory stays flat.
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "100")
    folder = lit_api.published.folder
    if lit_api.published.is_retriever:
        return _load_retriever(lit_api, device, folder, lit_api.settings.dtype)
    if not lit_api.published.is_grounded:
        return _load_generator(lit_api, device)
    from serve.engine.grounded import GroundedEngine

    # the retriever first: the generator's cache is a share of the memory that is then free
    retriever = _load_retriever(lit_api, device, folder / FOLDER, "float32")
    return GroundedEngine(_load_generator(lit_api, device), retriever)


def _load_retriever(lit_api: AnswerAPI, device: str, folder: Path, dtype: str) -> "RetrieverEngine":
    """Load the encoder and the index, and leave its tokenizer for the HTTP process.

    Args:
        lit_api: with the settings.
        device: to load it on.
        folder: of the retriever.
        dtype: to compute in; a retriever knows float32 alone.

    Raises:
        Exception: of any class; the retriever cannot be served.
    """
    from serve.retriever import handover
    from serve.retriever.load import load

    settings = lit_api.settings
    engine = load(
        folder, device, dtype=dtype, max_rows=settings.max_running,
        hang_seconds=settings.hang_seconds, workers=settings.workers,
    )  # fmt: skip
    handover.write(lit_api.socket, engine.encoder.prompts, engine.encoder.tokenizer)
    return engine


def _load_generator(lit_api: AnswerAPI, device: str) -> "Engine":
    """Load the model and warm up its engine.

    Raises:
        Exception: of any class; the model cannot be served.
    """
    from serve.engine import threads
    from serve.engine.engine import Engine  # imports torch, which only this process needs
    from serve.engine.memory import free_memory
    from serve.engine.model import load
    from serve.engine.promises import unmet_promises
    from serve.engine.warmup import warm_up

    settings = lit_api.settings
    model = load(lit_api.published.folder, device, settings.dtype, threads.count(share=settings.workers))
    # engines on one device load in parallel: each takes half of its share of the free memory
    memory = settings.cache_bytes or free_memory(device) // (2 * settings.workers)
    engine = Engine(model, max_rows=settings.max_running, cache_bytes=memory)
    warm_up(engine, settings.hang_seconds)
    for line in unmet_promises(model, engine.limits):
        log.warning("engine: %s", line)
    return engine


def _run_steps(engine: "AnyEngine", link: EngineLink) -> None:
    """Compute steps for ever.

    Raises:
        LinkLost: the HTTP process is gone.
    """
    while True:
        for command in link.commands(wait=engine.idle):
            if refusal := _execute(command, engine):
                link.send(refusal)
        events = _events(engine.step())
        failed = [[failure.id, failure.reason] for failure in engine.failures()]
        beat = {"steps": engine.steps, "running": engine.running, "waiting": engine.waiting}
        link.send({"beat": beat, **events, "failed": failed})


def _execute(command: dict[str, Any], engine: "AnyEngine") -> dict[str, Any] | None:
    """Submit or cancel a request; returns the message to send if the engine refuses it."""
    if "cancel" in command:
        engine.cancel(command["cancel"])
        return None
    fields, submit = command["submit"], cast(Callable[[Any], None], engine.submit)
    try:
        submit(RetrieverRequest(**fields) if "texts" in fields else Request(**fields))
    except ValueError as error:
        return {"refused": [fields["id"], str(error)]}
    return None


def _events(produced: Sequence[Token | Done]) -> dict[str, Any]:
    """What a step produced, as the link sends it."""
    return {
        "tokens": [
            [one.id, one.token, one.finish, one.began, one.logprob] for one in produced if isinstance(one, Token)
        ],
        "results": [[one.id, one.result, one.began] for one in produced if isinstance(one, Done)],
    }
