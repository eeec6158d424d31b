"""/predict when time or places run out: deadlines, clients that leave, a full server, and answers under load."""

import asyncio
import json
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx2
import openai
import pytest
from predicting import QUESTION, SECONDS, ask, ask_streamed, inside, wait_until, without_timing
from served import Served
from tiny import ROWS

from serve.http.answer import Answer, Options
from serve.http.text import Text
from serve.link import Engines


def test_a_stop_string_frees_the_engine(idle: Served) -> None:
    begin = ask(idle, max_new_tokens=200)["answer"]
    stop = begin[-3:]
    answer = ask(idle, stop=stop)
    assert answer["finish_reason"] == "stop"
    assert begin.startswith(answer["answer"]) and stop not in answer["answer"]
    assert answer["usage"]["completion_tokens"] <= 200


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
def test_at_the_deadline_the_partial_answer_is_returned(idle: Served, stream: bool) -> None:
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
        assert "2 requests are in progress, of at most 2" in error["message"]
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


def test_a_token_at_the_deadline_does_not_extend_the_answer(published: Path, tmp_path: Path) -> None:
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
        writer.write(json.dumps({"tokens": [[id, 5, None, 0.0, None]]}).encode() + b"\n")
        time.sleep(0.2)  # the loop stands still; the token and the deadline are both there when it goes on
        await asyncio.wait_for(reading, SECONDS / 4)
        assert json.loads(await reader.readline()) == {"cancel": id}
        writer.close()
        await engines.close()
        return answer

    answer = asyncio.run(cut_short())
    assert (answer.finish_reason, answer.deadline_reached) == ("length", True)
