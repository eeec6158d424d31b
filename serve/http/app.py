"""Starts and ends what the HTTP process runs beside its routes: the link to the engines, the tokenizer, the watches.

It knows the life cycle of the HTTP process. It does not know routes.
"""

import asyncio
import logging
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from serve import confidence
from serve.grounding import read
from serve.http import metrics
from serve.http.admission import Admission
from serve.http.state import AppState
from serve.http.tokens import Tokens
from serve.link import Engines
from serve.messages import one_line
from serve.repository import Published, decoding, eos_ids
from serve.retriever.files import threshold
from serve.settings import Settings
from serve.shared import Shared

if TYPE_CHECKING:
    from serve.http.text import Text

log = logging.getLogger(__name__)
WATCH_SECONDS = 0.1
"""Between two checks of the engines and of the signal to stop."""


@asynccontextmanager
async def open_state(settings: Settings, published: Published, socket: Path, shared: Shared) -> AsyncIterator[AppState]:
    """Start what the routes need, and end it after them.

    Args:
        settings: what the options say.
        published: the model to serve.
        socket: path of the Unix socket for the engines.
        shared: the flags of the server.

    Yields:
        The state for the routes; its tokenizer is loaded in the background.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to every process; the main one decides
    engines = Engines(socket)
    await engines.start()
    places = settings.max_running * shared.engines + settings.max_waiting
    state = AppState(settings, published, engines, shared, Admission(places))
    loads = []
    if published.is_retriever:
        state.threshold = threshold(published.folder)
        loads.append(_load_tokens(state, socket))
    else:
        state.defaults, state.confidence = decoding(published.folder), confidence.read(published.folder)
        loads.append(_load_text(state))
    if published.is_grounded:
        grounding = read(published.folder)
        state.threshold, state.rows = grounding.threshold, grounding.rows
        loads.append(_load_tokens(state, socket))
    metrics.MODEL.info({"model": published.name, "revision": published.revision})
    tasks = [
        *map(asyncio.create_task, loads),
        asyncio.create_task(_watch_for_stop(state)),
        asyncio.create_task(_watch_engines(state)),
    ]
    try:
        yield state
    finally:
        for task in tasks:
            task.cancel()
        await engines.close()


async def _load_text(state: AppState) -> None:
    published, engines = state.published, state.engines

    def load() -> "Text":
        from serve.http import compatibility  # imports transformers, which takes seconds; the engine loads meanwhile

        text = compatibility.load(published.folder, eos_ids(published.folder))
        if published.is_grounded:
            compatibility.check_documents(text)
        return text

    def check(text: "Text", vocabulary: int) -> None:
        from serve.http import compatibility

        compatibility.check_ids(text, vocabulary)

    try:
        text = await asyncio.to_thread(load)
        while not engines.ready:  # only an engine knows the size of the model's vocabulary
            await asyncio.sleep(WATCH_SECONDS)
        await asyncio.to_thread(check, text, engines.ready[0].ready.vocabulary)
    except Exception as error:
        log.error("%s cannot be served: %s", state.published.name, one_line(error))
        state.shared.refused.set()
        os._exit(2)  # the main process sees the flag and ends
    state.shared.tokenizer_loaded.set()
    state.text = text


async def _load_tokens(state: AppState, socket: Path) -> None:
    """Load the tokenizer that the first engine leaves beside the socket."""
    while not state.engines.ready:
        await asyncio.sleep(WATCH_SECONDS)
    state.tokens = await asyncio.to_thread(Tokens, socket)
    state.shared.tokenizer_loaded.set()


async def _watch_engines(state: AppState) -> None:
    """Kill an engine that has been silent for --hang-seconds; LitServe restarts it.

    Silence is counted in checks, so that a machine that was asleep counts as no silence.
    """
    silent: dict[int, float] = {}
    heard: dict[int, float] = {}
    while True:
        await asyncio.sleep(WATCH_SECONDS)
        for engine in state.engines.ready:
            pid = engine.ready.pid
            silent[pid] = silent.get(pid, 0.0) + WATCH_SECONDS if engine.last_beat == heard.get(pid) else 0.0
            heard[pid] = engine.last_beat
            if silent[pid] > state.settings.hang_seconds:
                log.error("engine: silent for %.0f s (--hang-seconds), killing it", silent[pid])
                os.kill(pid, signal.SIGKILL)
                silent[pid] = 0.0


async def _watch_for_stop(state: AppState) -> None:
    while not state.shared.stopping.is_set():
        await asyncio.sleep(WATCH_SECONDS)
    state.engines.finish_within(state.settings.drain_delay + state.settings.drain_seconds)
