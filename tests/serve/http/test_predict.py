"""/predict as a client uses it: the answer, the stream, what a request may ask for, and what a busy server does."""

import asyncio
import json
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx2
import openai
import pytest
from served import Served
from tiny import ROWS, endless
from transformers import PreTrainedTokenizerBase

from serve.http.answer import Answer, Options
from serve.http.text import Text
from serve.link import Engines
from serve.repository import find

QUESTION, ANSWER = ROWS[1]["question"], ROWS[1]["answer"]
SECONDS = 60
"""Patience with a machine that is shared with others; nothing here takes a tenth of it on an idle one."""


@pytest.fixture(scope="module")
def slow(never_ending: Path) -> Iterator[Served]:
    """A server with room for one running and one waiting request, whose answers take many seconds."""
    with Served(never_ending, "--max-running", "1", "--max-waiting", "1") as running:
        yield running


@pytest.fixture
def idle(slow: Served) -> Iterator[Served]:
    """`slow`, with nobody inside before and after the test."""
    yield slow
    wait_until(lambda: inside(slow) == (0, 0))


def ask(server: Served, question: str = QUESTION, headers: dict[str, str] | None = None, **options: Any) -> Any:
    response = httpx2.post(
        f"{server.url}/predict", json={"question": question, **options}, headers=headers, timeout=SECONDS
    )
    assert response.status_code == 200, response.text
    return response.json()


def ask_streamed(
    server: Served, question: str = QUESTION, headers: dict[str, str] | None = None, **options: Any
) -> tuple[list[str], Any]:
    """The texts of the deltas, and the data of the last event, which has to be `done`."""
    body = {"question": question, "stream": True, **options}
    response = httpx2.post(f"{server.url}/predict", json=body, headers=headers, timeout=SECONDS)
    assert response.status_code == 200, response.text
    assert response.headers["content-type"].startswith("text/event-stream")
    *deltas, last = [read_event(event) for event in response.text.removesuffix("\n\n").split("\n\n")]
    assert [name for name, _ in deltas] == ["delta"] * len(deltas)
    assert last[0] == "done"
    return [data["text"] for _, data in deltas], last[1]


def read_event(event: str) -> tuple[str, Any]:
    name, data = event.split("\n")
    return name.removeprefix("event: "), json.loads(data.removeprefix("data: "))


def inside(server: Served) -> tuple[float, float]:
    """Requests that run and that wait."""
    return server.metric("kickoff_running"), server.metric("kickoff_waiting")


def wait_until(holds: Callable[[], bool]) -> None:
    give_up = time.monotonic() + SECONDS / 2
    while not holds():
        assert time.monotonic() < give_up, "it did not come to be"
        time.sleep(0.05)


def without_timing(answer: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in answer.items() if name != "timing"}


@pytest.mark.parametrize("row", [*ROWS[:2], *ROWS[3:8]], ids=lambda row: row["question"])
def test_it_answers_what_the_model_learned(server: Served, row: dict[str, str]) -> None:
    assert ask(server, row["question"])["answer"] == row["answer"]


def test_an_answer_names_its_model_and_revision(server: Served, published: Path) -> None:
    answer = ask(server)
    assert answer["model"] == str(published)
    assert answer["revision"] == find(str(published), None).revision
    assert answer["revision"].startswith("sha256:")


def test_an_answer_that_ends_by_itself_says_stop_and_counts_its_end_token(
    server: Served, tokenizer: PreTrainedTokenizerBase
) -> None:
    answer = ask(server)
    chat = [{"role": "user", "content": QUESTION}]
    text = str(tokenizer.apply_chat_template(chat, add_generation_prompt=True, tokenize=False))
    prompt, completion = len(tokenizer(text)["input_ids"]), len(tokenizer(ANSWER)["input_ids"]) + 1
    assert (answer["finish_reason"], answer["deadline_reached"]) == ("stop", False)
    assert answer["usage"] == {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
    }


def test_null_is_the_published_limit_and_minus_one_is_none(fetched: Path, tmp_path: Path) -> None:
    folder = endless(fetched, tmp_path / "brief", context=128)
    config = json.loads((folder / "generation_config.json").read_text())
    (folder / "generation_config.json").write_text(json.dumps({**config, "max_new_tokens": 5}))
    with Served(folder) as brief:
        assert ask(brief)["usage"]["completion_tokens"] == 5
        assert ask(brief, max_new_tokens=None)["usage"]["completion_tokens"] == 5
        assert ask(brief, max_new_tokens=-1)["usage"]["total_tokens"] == 128


def test_an_answer_that_is_cut_says_length(server: Served) -> None:
    answer = ask(server, max_new_tokens=2)
    assert (answer["answer"], answer["finish_reason"], answer["deadline_reached"]) == ("2 plus", "length", False)
    assert answer["usage"]["completion_tokens"] == 2


def test_no_answer_is_longer_than_published_unless_asked_for(server: Served) -> None:
    unknown = "plus plus plus plus"
    assert ask(server, unknown)["usage"]["completion_tokens"] <= 12
    sampled = [ask(server, temperature=2, seed=seed, max_new_tokens=30) for seed in range(16)]
    assert max(answer["usage"]["completion_tokens"] for answer in sampled) > 12


def test_question_and_answer_together_fill_the_context_and_no_more(idle: Served) -> None:
    tokens = ask(idle, "plus" * 1000, max_new_tokens=1)["usage"]["prompt_tokens"]
    answer = ask(idle, "plus" * 1000 + "+" * (4080 - tokens), max_new_tokens=4096)
    assert answer["finish_reason"] == "length"
    assert answer["usage"]["total_tokens"] == 4096
    assert answer["usage"]["completion_tokens"] < 100


def test_times_are_in_order(server: Served) -> None:
    timing = ask(server)["timing"]
    assert 0 <= timing["queued_ms"] <= timing["first_token_ms"] <= timing["total_ms"] < SECONDS * 1000


def test_a_stream_joined_is_the_answer(server: Served) -> None:
    deltas, done = ask_streamed(server)
    assert len(deltas) > 1
    assert "".join(deltas) == done["answer"] == ANSWER
    assert without_timing(done) == without_timing(ask(server))


def test_the_published_default_is_greedy_and_so_is_temperature_0(server: Served) -> None:
    unknown = ROWS[20]["question"]
    assert without_timing(ask(server, unknown)) == without_timing(ask(server, unknown, temperature=0))
    assert without_timing(ask(server, unknown)) == without_timing(ask(server, unknown, temperature=0, seed=7))


def test_a_seed_makes_sampling_repeatable(server: Served) -> None:
    def answers() -> list[str]:
        return [ask(server, temperature=1.5, seed=seed)["answer"] for seed in range(6)]

    first = answers()
    assert answers() == first
    assert len(set(first)) > 1
    deltas, _ = ask_streamed(server, temperature=1.5, seed=3)
    assert "".join(deltas) == first[3]


def test_without_a_seed_sampling_varies(server: Served) -> None:
    assert len({ask(server, temperature=2)["answer"] for _ in range(6)}) > 1


def test_top_k_1_and_a_tiny_top_p_are_greedy_at_any_temperature(server: Served) -> None:
    assert ask(server, temperature=2, top_k=1)["answer"] == ANSWER
    assert ask(server, temperature=2, top_p=0.0001)["answer"] == ANSWER


@pytest.mark.parametrize(
    "stop, answer, finish",
    [
        (" is", "2 plus 2", "stop"),  # one whole token
        ("plus 2 i", "2 ", "stop"),  # from the middle of a token into another
        ("2", "", "stop"),  # the first token
        (ANSWER, "", "stop"),
        (["4", " is"], "2 plus 2", "stop"),  # the one that comes first, in whatever order they are given
        ([" is", "4"], "2 plus 2", "stop"),
        (["plus 2", "plus"], "2 ", "stop"),
        (["us", "plus", "l"], "2 p", "stop"),  # all in one token; what counts is which is complete first
        (["Ü", "us 2 is 4"], "2 pl", "stop"),
        (" is 5", ANSWER, "stop"),  # begins and does not come
        (["4. And", " 4.!"], ANSWER, "stop"),  # the end is held back until it is the end
        (".", "2 plus 2 is 4", "stop"),
        ([], ANSWER, "stop"),
    ],
)
def test_a_stop_string_cuts_before_its_first_letter(
    server: Served, stop: str | list[str], answer: str, finish: str
) -> None:
    whole = ask(server, stop=stop)
    assert (whole["answer"], whole["finish_reason"]) == (answer, finish)
    deltas, done = ask_streamed(server, stop=stop)
    assert "".join(deltas) == answer
    assert without_timing(done) == without_timing(whole)


def test_what_was_held_back_for_a_stop_string_is_given_at_the_end(server: Served) -> None:
    whole = ask(server, stop=" 2 is", max_new_tokens=3)
    assert (whole["answer"], whole["finish_reason"]) == ("2 plus 2", "length")
    deltas, _ = ask_streamed(server, stop=" 2 is", max_new_tokens=3)
    assert "".join(deltas) == "2 plus 2"


def test_a_stop_string_frees_the_engine(idle: Served) -> None:
    begin = ask(idle, max_new_tokens=200)["answer"]
    stop = begin[-3:]
    answer = ask(idle, stop=stop)
    assert answer["finish_reason"] == "stop"
    assert begin.startswith(answer["answer"]) and stop not in answer["answer"]
    assert answer["usage"]["completion_tokens"] <= 200


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
def test_a_deadline_gives_what_is_there(idle: Served, stream: bool) -> None:
    began, headers = time.monotonic(), {"X-Request-Timeout": "0.5"}
    if stream:
        deltas, answer = ask_streamed(idle, headers=headers)
        assert "".join(deltas) == answer["answer"]
    else:
        answer = ask(idle, headers=headers)
    assert time.monotonic() - began < 5
    assert (answer["finish_reason"], answer["deadline_reached"]) == ("length", True)
    assert 0 < answer["usage"]["completion_tokens"] < 4000
    assert answer["timing"]["total_ms"] >= 490


def test_a_client_that_leaves_a_stream_frees_its_place(idle: Served) -> None:
    cancelled = idle.metric("kickoff_cancelled_total")
    with httpx2.stream("POST", f"{idle.url}/predict", json={"question": QUESTION, "stream": True}) as response:
        lines = response.iter_lines()
        assert next(lines) == "event: delta"  # the answer is seconds from its end
        wait_until(lambda: inside(idle) == (1, 0))
    wait_until(lambda: inside(idle) == (0, 0))
    assert idle.metric("kickoff_cancelled_total") == cancelled + 1


def test_a_client_that_does_not_wait_for_its_answer_frees_its_place(idle: Served) -> None:
    cancelled = idle.metric("kickoff_cancelled_total")
    with pytest.raises(httpx2.ReadTimeout):
        httpx2.post(f"{idle.url}/predict", json={"question": QUESTION}, timeout=0.5)
    wait_until(lambda: inside(idle) == (0, 0))
    assert idle.metric("kickoff_cancelled_total") == cancelled + 1
    engine_rests(idle)


def engine_rests(server: Served) -> None:
    """Wait until the engine computes nothing any more: a request that is merely forgotten would go on."""
    seen = [server.metric("kickoff_engine_steps")]

    def rests() -> bool:
        time.sleep(0.6)  # longer than a beat, at which the number comes here
        seen.append(server.metric("kickoff_engine_steps"))
        return seen[-1] == seen[-2]

    wait_until(rests)
    assert seen[-1] - seen[0] < 3000


def test_a_full_server_refuses_at_once_and_serves_again_when_there_is_room(idle: Served) -> None:
    rejected = idle.metric("kickoff_rejected_total", reason="overload")
    counted = idle.metric("kickoff_requests_total", route="/predict", code="429")
    with (
        ThreadPoolExecutor(1) as thread,
        httpx2.stream("POST", f"{idle.url}/predict", json={"question": QUESTION, "stream": True}) as running,
    ):
        lines = running.iter_lines()
        assert next(lines) == "event: delta"
        waiting = thread.submit(ask, idle, max_new_tokens=3)
        wait_until(lambda: inside(idle) == (1, 1))

        began = time.monotonic()
        refused = httpx2.post(f"{idle.url}/predict", content=b"nobody reads this", timeout=SECONDS)
        with pytest.raises(openai.RateLimitError) as limited:
            client = openai.OpenAI(base_url=f"{idle.url}/v1", api_key="none", max_retries=0)
            model = client.models.list().data[0].id
            client.chat.completions.create(model=model, messages=[{"role": "user", "content": QUESTION}])
        assert time.monotonic() - began < 5
        assert inside(idle) == (1, 1)

        running.close()
        assert waiting.result()["usage"]["completion_tokens"] == 3
    for response in (refused, limited.value.response):
        assert response.status_code == 429
        assert int(response.headers["retry-after"]) >= 1
        error = response.json()["error"]
        assert (error["code"], error["type"]) == ("overloaded", "rate_limit_error")
        assert "2 requests are inside, of 2 that fit" in error["message"]
    assert idle.metric("kickoff_rejected_total", reason="overload") == rejected + 2
    assert idle.metric("kickoff_requests_total", route="/predict", code="429") == counted + 1
    assert ask(idle, max_new_tokens=3)["usage"]["completion_tokens"] == 3


def test_more_choices_than_there_are_places_are_refused_for_good(idle: Served) -> None:
    body = {"messages": [{"role": "user", "content": QUESTION}], "n": 3}
    response = httpx2.post(f"{idle.url}/v1/chat/completions", json=body, timeout=SECONDS)
    assert response.status_code == 422  # not 429: there is no use in coming again
    assert response.json()["error"]["message"].startswith("n: found 3, expected at most 2")


def test_a_deadline_counts_from_the_arrival_also_in_the_queue(idle: Served) -> None:
    with httpx2.stream("POST", f"{idle.url}/predict", json={"question": QUESTION, "stream": True}) as running:
        lines = running.iter_lines()
        assert next(lines) == "event: delta"
        for stream in (False, True):
            body = {"question": QUESTION, "stream": stream}
            late = httpx2.post(f"{idle.url}/predict", json=body, headers={"X-Request-Timeout": "0.5"}, timeout=SECONDS)
            assert (late.status_code, late.json()["error"]["code"]) == (503, "deadline_reached")
            assert int(late.headers["retry-after"]) > 0


def test_answers_under_load_are_those_that_are_given_alone(server: Served) -> None:
    questions = [row["question"] for row in ROWS[4:11]] + ["plus plus plus plus"]  # known, half known, nonsense
    alone = [without_timing(ask(server, question)) for question in questions]
    with ThreadPoolExecutor(24) as threads:
        together = list(threads.map(lambda question: without_timing(ask(server, question)), questions * 3))
    assert together == alone * 3


def test_sampled_answers_under_load_are_those_that_are_given_alone(server: Served) -> None:
    def sampled(seed: int) -> str:
        return ask(server, temperature=1.5, seed=seed)["answer"]

    alone = [sampled(seed) for seed in range(4)]
    with ThreadPoolExecutor(12) as threads:
        assert list(threads.map(sampled, [0, 1, 2, 3] * 3)) == alone * 3


def test_a_token_that_comes_with_the_deadline_does_not_undo_it(published: Path, tmp_path: Path) -> None:
    """A busy event loop finds both at once. The engine is this test, on a real socket."""

    async def cut_short() -> Answer:
        engines = Engines(tmp_path / "engine")
        await engines.start()
        reader, writer = await asyncio.open_unix_connection(tmp_path / "engine")
        writer.write(b'{"ready": {"number": 0, "pid": 0, "context": 128, "vocabulary": 400}}\n')
        while not engines.ready:
            await asyncio.sleep(0.01)
        options = Options(max_new_tokens=9, temperature=0, top_p=1, top_k=0, seed=None, stop=[])
        answer = Answer(engines, Text(published).decoder([]), [5], options, time.monotonic(), seconds=0.1)

        async def read() -> None:
            async for _ in answer.pieces(stream=False):
                pass

        reading = asyncio.create_task(read())
        id = json.loads(await reader.readline())["submit"]["id"]
        writer.write(json.dumps({"tokens": [[id, 5, None, 0.0]]}).encode() + b"\n")
        time.sleep(0.2)  # the loop stands still; the token and the deadline are both there when it goes on
        await asyncio.wait_for(reading, SECONDS / 4)
        assert json.loads(await reader.readline()) == {"cancel": id}
        writer.close()
        await engines.close()
        return answer

    answer = asyncio.run(cut_short())
    assert (answer.finish_reason, answer.deadline_reached) == ("length", True)
