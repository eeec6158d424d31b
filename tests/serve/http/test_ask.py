"""A request on its way into the server, with an engine that is this test, on a real socket."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from threading import Event
from typing import Any

import pytest
from chat_templates import STYLES, text_of

from serve.http import ask
from serve.http.admission import Admission
from serve.http.ask import Query
from serve.http.errors import Problem
from serve.http.state import AppState
from serve.http.text import Text
from serve.link import Engines
from serve.repository import Decoding, Published
from serve.settings import Settings
from serve.shared import Shared

Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]
READY = b'{"ready": {"number": 0, "pid": 0, "context": 128, "vocabulary": 400}}\n'


@asynccontextmanager
async def served(text: Text, folder: Path) -> AsyncIterator[tuple[AppState, Connection]]:
    engines = Engines(folder / "engine")
    await engines.start()
    reader, writer = await asyncio.open_unix_connection(folder / "engine")
    writer.write(READY)
    while not engines.ready:
        await asyncio.sleep(0.01)
    published, defaults = Published("tiny", "1", folder), Decoding(9, 0, 1, 0)
    yield AppState(Settings("tiny"), published, engines, Shared(1), Admission(4), defaults, text), (reader, writer)
    writer.close()
    await engines.close()


def wanted(messages: list[dict[str, Any]], **more: Any) -> Query:
    options = dict.fromkeys(("max_new_tokens", "temperature", "top_p", "top_k", "seed", "stop", "seconds"))
    return Query(messages, **{**options, **more})


@pytest.mark.parametrize("name", ["llama 2", "zephyr"])
@pytest.mark.parametrize(("continued", "expected"), [(True, " 4"), (False, "4")])
def test_an_answer_that_continues_a_message_keeps_its_blank(
    tmp_path: Path, name: str, continued: bool, expected: str
) -> None:
    text = text_of(STYLES[name], tmp_path)
    ids = [text.tokenizer.backend_tokenizer.token_to_id(token) for token in ("▁", "4")]
    said = [{"role": "user", "content": "What is 2 plus 2?"}, {"role": "assistant", "content": "2 plus 2 is"}]

    async def answer() -> str:
        async with served(text, tmp_path) as (state, (reader, writer)):
            asked = await ask.start(state, wanted(said, continued=continued))
            made = asyncio.create_task(anext(ask.stream_pieces(asked.answers, stream=False)))
            id = json.loads(await reader.readline())["submit"]["id"]
            tokens = [[id, ids[0], None, 0.0, None], [id, ids[1], "length", 0.0, None]]
            writer.write(json.dumps({"tokens": tokens}).encode() + b"\n")
            return (await made)[1]

    assert asyncio.run(answer()) == expected


def test_an_engine_that_dies_while_a_long_prompt_is_made_is_a_503(published: Path, tmp_path: Path) -> None:
    making, dead = Event(), Event()

    class Slow(Text):
        def prompt_ids(self, *conversation: Any) -> list[int]:
            making.set()
            assert dead.wait(60)
            return super().prompt_ids([{"role": "user", "content": "What is 2 plus 2?"}])

    async def refused() -> Problem:
        async with served(Slow(published), tmp_path) as (state, (_, writer)):

            async def answer() -> None:
                asked = await ask.start(state, wanted([{"role": "user", "content": "x" * 5000}]))
                async for _ in ask.stream_pieces(asked.answers, stream=False):
                    pass

            answering = asyncio.create_task(answer())
            await asyncio.to_thread(making.wait)
            writer.close()
            while state.engines.ready:
                await asyncio.sleep(0.01)
            dead.set()
            with pytest.raises(Problem) as problem:
                await answering
            return problem.value

    problem = asyncio.run(refused())
    assert (problem.status, problem.body["error"]["code"]) == (503, "engine_died")
