"""What the routes share and what runs beside them: the line to the engines, the tokenizer, the watch for the end.

It knows the HTTP process' life from start to end. It does not know routes.
"""

import asyncio
import logging
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from serve.http import metrics
from serve.http.admission import Admission
from serve.link import Engines
from serve.messages import one_line
from serve.repository import Decoding, Published, decoding, ends
from serve.settings import Settings
from serve.shared import Shared

if TYPE_CHECKING:
    from serve.http.text import Text

log = logging.getLogger(__name__)
WATCH_SECONDS = 0.1
"""Between looks at the signal to stop."""


@dataclass
class Serving:
    """What the routes share, in the HTTP process. `text` is there once the tokenizer has been loaded."""

    settings: Settings
    published: Published
    engines: Engines
    shared: Shared
    admission: Admission
    defaults: Decoding
    text: "Text | None" = None

    @property
    def name(self) -> str:
        """What clients call the model."""
        return self.settings.served_model_name or self.published.name

    def unwelcome(self) -> str | None:
        """Why requests should go elsewhere; None if they are welcome. Those that come are answered if they can be."""
        return "the server is stopping" if self.shared.stopping.is_set() else self.unready()

    def unready(self) -> str | None:
        """Why nothing can be answered now; None if all is well."""
        if not self.engines.ready and self.engines.were_ready:
            return "the engine died and is being started anew"
        if not self.engines.ready or self.text is None:
            return "the model is being loaded"
        if self.engines.beat_age > self.settings.hang_seconds:
            return f"the engine has not reported for {self.engines.beat_age:.0f} s"
        return None

    @property
    def loaded_text(self) -> "Text":
        assert self.text is not None  # noqa: S101 - asked only where unready() is None
        return self.text

    @property
    def context(self) -> int:
        """Tokens for prompt and answer together."""
        context = self.engines.context
        assert context is not None  # noqa: S101 - asked only where unready() is None
        return context


@asynccontextmanager
async def run_beside(settings: Settings, published: Published, socket: Path, shared: Shared) -> AsyncIterator[Serving]:
    """Bring up what the routes need, and take it down after them."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to every process; the main one decides
    engines = Engines(socket)
    await engines.start()
    places = settings.max_running * shared.engines + settings.max_waiting
    serving = Serving(settings, published, engines, shared, Admission(places), decoding(published.folder))
    metrics.MODEL.info({"model": published.name, "revision": published.revision})
    tasks = [
        asyncio.create_task(_load_text(serving)),
        asyncio.create_task(_watch_the_end(serving)),
        asyncio.create_task(_watch_the_engines(serving)),
    ]
    try:
        yield serving
    finally:
        for task in tasks:
            task.cancel()
        await engines.close()


async def _load_text(serving: Serving) -> None:
    folder, engines = serving.published.folder, serving.engines

    def load() -> "Text":
        from serve.http import belonging  # brings transformers, which takes seconds; the engine loads meanwhile

        return belonging.load(folder, ends(folder))

    def check(text: "Text", vocabulary: int) -> None:
        from serve.http import belonging

        belonging.check_ids(text, vocabulary)

    try:
        text = await asyncio.to_thread(load)
        while not engines.ready:  # only an engine knows how many ids the model has
            await asyncio.sleep(WATCH_SECONDS)
        await asyncio.to_thread(check, text, engines.ready[0].ready.vocabulary)
    except Exception as error:
        log.error("%s cannot be served: %s", serving.published.name, one_line(error))
        serving.shared.refused.set()
        os._exit(2)  # the main process sees it and leaves
    serving.shared.tokenizer_loaded.set()
    serving.text = text


async def _watch_the_engines(serving: Serving) -> None:
    """Kill an engine that is silent; it is replaced.

    Silence is counted in our own looks: when the whole machine was asleep, nobody was silent.
    """
    silent: dict[int, float] = {}
    heard: dict[int, float] = {}
    while True:
        await asyncio.sleep(WATCH_SECONDS)
        for engine in serving.engines.ready:
            pid = engine.ready.pid
            silent[pid] = silent.get(pid, 0.0) + WATCH_SECONDS if engine.last_beat == heard.get(pid) else 0.0
            heard[pid] = engine.last_beat
            if silent[pid] > serving.settings.hang_seconds:
                log.error("engine: no word for %.0f s (--hang-seconds), killing it", silent[pid])
                os.kill(pid, signal.SIGKILL)
                silent[pid] = 0.0


async def _watch_the_end(serving: Serving) -> None:
    while not serving.shared.stopping.is_set():
        await asyncio.sleep(WATCH_SECONDS)
    serving.engines.finish_within(serving.settings.drain_delay + serving.settings.drain_seconds)
