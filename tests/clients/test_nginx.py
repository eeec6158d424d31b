"""nginx before the server: answers, streams that come as they are made, connections that are kept, and who gives up.

nginx is the system's, or Debian's package, which `make clients-test` unpacks. It runs with `examples/nginx.conf`.
"""

import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx2
import openai
import psutil
import pytest
from checkout import ENVIRONMENTS, ROOT
from served import Served, free_port
from tiny import ROWS, endless

pytestmark = [pytest.mark.clients, pytest.mark.timeout(240)]
EXAMPLE = ROOT / "examples" / "nginx.conf"
QUESTION, ANSWER = ROWS[1]["question"], ROWS[1]["answer"]
ASKED: Any = [{"role": "user", "content": QUESTION}]
FOREVER = {"question": "Go on.", "stream": True}
SECONDS = 60
PLAIN = """
pid nginx.pid;
error_log stderr;
events {}
http { server { listen 127.0.0.1:8080; access_log off; location / { proxy_pass http://127.0.0.1:8000; } } }
"""
"""The least that a person writes: HTTP/1.0 to the server, and a connection for each request."""


@contextmanager
def nginx(folder: Path, server: Served, config: str) -> Iterator[str]:
    """The address of an nginx that stands before `server`."""
    places = [str(ENVIRONMENTS / "nginx" / "usr" / "sbin"), "/usr/sbin", os.environ["PATH"]]
    program = shutil.which("nginx", path=os.pathsep.join(places))
    assert program is not None, "nginx is not here; `make clients-test` gets it"
    port = free_port()
    text = config.replace("127.0.0.1:8000", f"127.0.0.1:{server.port}").replace("127.0.0.1:8080", f"127.0.0.1:{port}")
    temporary = "".join(f"{kind}_temp_path {kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
    (folder / "nginx.conf").write_text(text.replace("http {", f"http {{ {temporary}"))
    command = [program, "-p", str(folder), "-c", "nginx.conf", "-g", "daemon off;", "-e", "stderr"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        wait_until(lambda: answers(f"http://127.0.0.1:{port}") or process.poll() is not None)
        assert process.poll() is None, process.communicate()[1]
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.communicate(timeout=30)


def answers(url: str) -> bool:
    with suppress(httpx2.TransportError):
        return httpx2.get(f"{url}/health/ready", timeout=SECONDS).status_code == 200
    return False


def wait_until(true: Callable[[], bool]) -> None:
    give_up = time.monotonic() + SECONDS
    while not true():
        assert time.monotonic() < give_up
        time.sleep(0.05)


@pytest.fixture(params=[EXAMPLE.read_text(), PLAIN], ids=["example", "plain"])
def fronted(server: Served, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[str]:
    with nginx(tmp_path, server, request.param) as url:
        yield url


@pytest.fixture(scope="module")
def slow(fetched: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A server with room for one running and one waiting request, whose answers take a minute."""
    folder = endless(fetched, tmp_path_factory.mktemp("slow") / "tiny", context=16384)
    with Served(folder, "--max-running", "1", "--max-waiting", "1") as running:
        yield running


def idle(server: Served) -> bool:
    return server.metric("kickoff_running") + server.metric("kickoff_waiting") == 0


def client_of(url: str) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0, timeout=SECONDS)


def test_answers_and_streams_pass(fronted: str) -> None:
    client = client_of(fronted)
    (model,) = client.models.list()
    answer = client.chat.completions.create(model=model.id, messages=ASKED)
    assert answer.choices[0].message.content == ANSWER
    chunks = client.chat.completions.create(model=model.id, messages=ASKED, stream=True)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == ANSWER


def test_an_error_keeps_its_form(fronted: str) -> None:
    with pytest.raises(openai.NotFoundError) as refused:
        client_of(fronted).chat.completions.create(model="gpt-4o", messages=ASKED)
    assert refused.value.code == "model_not_found"


@pytest.mark.parametrize("config", [EXAMPLE.read_text(), PLAIN], ids=["example", "plain"])
def test_a_stream_comes_as_it_is_made(slow: Served, tmp_path: Path, config: str) -> None:
    with (
        nginx(tmp_path, slow, config) as url,
        httpx2.stream("POST", f"{url}/predict", json=FOREVER, timeout=SECONDS) as response,
    ):
        assert response.status_code == 200
        chunks = response.iter_raw()
        first = next(chunks) + next(chunks)
        assert len(first) < 1000, "it was collected"
        assert slow.metric("kickoff_running") == 1
    wait_until(lambda: idle(slow))


def test_nginx_is_told_not_to_collect_a_stream(server: Served) -> None:
    """Some versions and settings of nginx collect 4 KiB first. nginx takes the header for itself."""
    body = {"question": QUESTION, "stream": True}
    response = httpx2.post(f"{server.url}/predict", json=body, timeout=SECONDS)
    assert response.headers["x-accel-buffering"] == "no"


def test_a_client_that_leaves_nginx_frees_its_place(slow: Served, tmp_path: Path) -> None:
    before = slow.metric("kickoff_cancelled_total")
    with (
        nginx(tmp_path, slow, EXAMPLE.read_text()) as url,
        httpx2.stream("POST", f"{url}/predict", json=FOREVER, timeout=SECONDS) as response,
    ):
        next(response.iter_raw())
        response.close()
        wait_until(lambda: idle(slow))
    assert slow.metric("kickoff_cancelled_total") == before + 1


def test_an_nginx_timeout_cancels_the_request(slow: Served, tmp_path: Path) -> None:
    """A read timeout below --timeout is 504 for the client, and its place is free again."""
    config = EXAMPLE.read_text().replace("proxy_read_timeout 75s", "proxy_read_timeout 1s")
    with nginx(tmp_path, slow, config) as url:
        response = httpx2.post(f"{url}/predict", json={"question": "Go on."}, timeout=SECONDS)
        assert response.status_code == 504
        wait_until(lambda: idle(slow))


def test_the_server_gives_up_before_nginx(slow: Served, tmp_path: Path) -> None:
    """At its deadline the answer comes as far as it is, and not a 504."""
    with nginx(tmp_path, slow, EXAMPLE.read_text()) as url:
        headers = {"X-Request-Timeout": "1"}
        response = httpx2.post(f"{url}/predict", json={"question": "Go on."}, headers=headers, timeout=SECONDS)
    assert (response.status_code, response.json()["deadline_reached"]) == (200, True)


def test_a_stream_that_waits_is_kept_alive(slow: Served, tmp_path: Path) -> None:
    """nginx counts the seconds in which nothing comes: a waiting stream has headers at once and comments then."""
    with (
        nginx(tmp_path, slow, EXAMPLE.read_text()) as url,
        httpx2.stream("POST", f"{slow.url}/predict", json=FOREVER, timeout=SECONDS) as busy,
    ):
        body = {"messages": ASKED, "stream": True, "max_tokens": 2}
        with httpx2.stream("POST", f"{url}/v1/chat/completions", json=body, timeout=SECONDS) as waiting:
            assert waiting.status_code == 200
            lines = waiting.iter_lines()
            assert next(lines).startswith(":")
            assert slow.metric("kickoff_waiting") == 1
            busy.close()
            events = [line.removeprefix("data: ") for line in lines if line.startswith("data: ")]
    assert events[-1] == "[DONE]"
    assert json.loads(events[-2])["choices"][0]["finish_reason"] == "length"


def test_no_room_passes_with_its_retry_after(slow: Served, tmp_path: Path) -> None:
    with (
        nginx(tmp_path, slow, EXAMPLE.read_text()) as url,
        httpx2.stream("POST", f"{slow.url}/predict", json=FOREVER, timeout=SECONDS),
    ):
        body = {"messages": ASKED, "n": 2}
        response = httpx2.post(f"{url}/v1/chat/completions", json=body, timeout=SECONDS)
        assert response.status_code == 429
        assert int(response.headers["retry-after"]) >= 1
    wait_until(lambda: idle(slow))


def upstream(server: Served) -> set[int]:
    """The ports of nginx's connections to the server."""
    http = server.children().get("http") or psutil.Process(server.process.pid)
    connections = http.net_connections("tcp")
    return {
        connection.raddr.port
        for connection in connections
        if connection.laddr.port == server.port and connection.status == psutil.CONN_ESTABLISHED
    }


def test_connections_to_the_server_outlive_a_pause(published: Path, tmp_path: Path) -> None:
    """A server that closes them sooner than nginx makes some requests fail with 502: nginx cannot know in time."""
    with Served(published) as alone, nginx(tmp_path, alone, EXAMPLE.read_text()) as url:
        ask = {"url": f"{url}/predict", "json": {"question": QUESTION}, "timeout": SECONDS}
        assert httpx2.post(**ask).json()["answer"] == ANSWER
        before = upstream(alone)
        time.sleep(7)  # uvicorn's own limit is 5 s
        assert before and before == upstream(alone)
        assert httpx2.post(**ask).json()["answer"] == ANSWER
        assert before == upstream(alone)


def test_the_id_that_nginx_gives_comes_back(server: Served, tmp_path: Path) -> None:
    log = tmp_path / "ids"
    config = EXAMPLE.read_text().replace("access_log off;", f"access_log {log} ids;")
    with nginx(tmp_path, server, config.replace("http {", "http { log_format ids $request_id;")) as url:
        response = httpx2.post(f"{url}/predict", json={"question": QUESTION}, timeout=SECONDS)
        assert len(response.headers["x-request-id"]) == 32, "as nginx makes them"
        wait_until(lambda: response.headers["x-request-id"] in log.read_text().split())
