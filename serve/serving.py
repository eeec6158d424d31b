"""What the routes share and what runs beside them: the line to the engine, the tokenizer, the watch for the end.

It knows the HTTP process' life from start to end. It does not know routes.
"""

import asyncio
import logging
import multiprocessing
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import TYPE_CHECKING

from serve import metrics
from serve.admission import Admission
from serve.engine.messages import one_line
from serve.link import EngineClient
from serve.repository import Decoding, Published, decoding, ends
from serve.settings import Settings

if TYPE_CHECKING:
    from serve.text import Text

log = logging.getLogger(__name__)
WATCH_SECONDS = 0.1
"""Between looks at the signal to stop."""


@dataclass
class Serving:
    """What the routes share, in the HTTP process. `text` is there once the tokenizer has been loaded."""

    settings: Settings
    published: Published
    client: EngineClient
    stopping: Event
    has_been_ready: Event
    admission: Admission
    defaults: Decoding
    text: "Text | None" = None

    @property
    def name(self) -> str:
        """What clients call the model."""
        return self.settings.served_model_name or self.published.name

    def unwelcome(self) -> str | None:
        """Why requests should go elsewhere; None if they are welcome. Those that come are answered if they can be."""
        return "the server is stopping" if self.stopping.is_set() else self.unready()

    def unready(self) -> str | None:
        """Why nothing can be answered now; None if all is well."""
        if self.client.ready is None and self.has_been_ready.is_set():
            return "the engine died and is being started anew"
        if self.client.ready is None or self.text is None:
            return "the model is being loaded"
        if self.client.beat_age > self.settings.hang_seconds:
            return f"the engine has not reported for {self.client.beat_age:.0f} s"
        return None

    @property
    def loaded_text(self) -> "Text":
        assert self.text is not None  # noqa: S101 - asked only where unready() is None
        return self.text

    @property
    def context(self) -> int:
        """Tokens for prompt and answer together."""
        assert self.client.ready is not None  # noqa: S101 - asked only where unready() is None
        return int(self.client.ready["context"])


@asynccontextmanager
async def run_beside(
    settings: Settings, published: Published, socket: Path, stopping: Event, has_been_ready: Event
) -> AsyncIterator[Serving]:
    """Bring up what the routes need, and take it down after them."""
    client = EngineClient(socket)
    await client.start()
    serving = Serving(
        settings, published, client, stopping, has_been_ready, Admission(settings.max_running + settings.max_waiting),
        decoding(published.folder),
    )  # fmt: skip
    metrics.MODEL.info({"model": published.name, "revision": published.revision})
    tasks = [
        asyncio.create_task(_load_text(serving)),
        asyncio.create_task(_watch_the_end(serving)),
        asyncio.create_task(_watch_the_engine(serving)),
    ]
    if parent := multiprocessing.parent_process():
        # if the main process is killed, nobody else would end this one
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to every process; the main one decides
        asyncio.get_running_loop().add_reader(parent.sentinel, lambda: os.kill(os.getpid(), signal.SIGTERM))
    try:
        yield serving
    finally:
        if parent:
            asyncio.get_running_loop().remove_reader(parent.sentinel)
        for task in tasks:
            task.cancel()
        await client.close()


async def _load_text(serving: Serving) -> None:
    folder, client = serving.published.folder, serving.client

    def load() -> "Text":
        from serve.http import belonging  # brings transformers, which takes seconds; the engine loads meanwhile

        return belonging.load(folder, ends(folder))

    def check(text: "Text", vocabulary: int) -> None:
        from serve.http import belonging

        belonging.check_ids(text, vocabulary)

    try:
        text = await asyncio.to_thread(load)
        while client.ready is None:  # only the engine knows how many ids the model has
            await asyncio.sleep(WATCH_SECONDS)
        await asyncio.to_thread(check, text, client.ready["vocabulary"])
    except Exception as error:
        log.error("%s cannot be served: %s", serving.published.name, one_line(error))
        os._exit(2)  # the main process sees it and leaves
    serving.text = text
    if serving.unready() is None:
        serving.has_been_ready.set()  # now, and not at the next look: from here on /health/ready says so


async def _watch_the_engine(serving: Serving) -> None:
    """Tell the main process of the first "ready", and kill an engine that is silent; the main process replaces it.

    Silence is counted in our own looks: when the whole machine was asleep, nobody was silent.
    """
    client, silent, heard = serving.client, 0.0, 0.0
    while True:
        await asyncio.sleep(WATCH_SECONDS)
        if serving.unready() is None:
            serving.has_been_ready.set()
        silent = silent + WATCH_SECONDS if client.ready and client.last_beat == heard else 0.0
        heard = client.last_beat
        if client.ready and silent > serving.settings.hang_seconds:
            log.error("engine: no word for %.0f s (--hang-seconds), killing it", silent)
            os.kill(client.ready["pid"], signal.SIGKILL)
            silent = 0.0


async def _watch_the_end(serving: Serving) -> None:
    while not serving.stopping.is_set():
        await asyncio.sleep(WATCH_SECONDS)
    serving.client.finish_within(serving.settings.drain_delay + serving.settings.drain_seconds)
