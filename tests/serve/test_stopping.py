"""The end of a server, as orchestrators, load balancers and people at a terminal meet it."""

import http.client
import os
import signal
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx2
import psutil
import pytest
from checkout import ROOT
from hub_server import HubServer
from huggingface_hub import HfApi
from processes import LONG, lives, status, until
from served import Served
from tiny import ROWS

QUESTION = {"question": ROWS[1]["question"]}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_while_load_balancers_notice_requests_are_served_and_connections_closed(
    number: signal.Signals, published: Path
) -> None:
    with Served(published, "--drain-delay", "4") as server:
        everybody = psutil.Process(server.process.pid).children(recursive=True)
        kept = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
        kept.request("GET", "/v1/models")
        first = kept.getresponse()
        assert first.read() and first.getheader("connection") is None
        others = everybody if number == signal.SIGINT else []  # the terminal sends Ctrl-C to every process
        for pid in [*(process.pid for process in others), server.process.pid]:
            os.kill(pid, number)
        until(lambda: status(f"{server.url}/health/ready") == 503)
        assert status(f"{server.url}/health/live") == 200
        kept.request("GET", "/v1/models")
        assert kept.getresponse().getheader("connection") == "close"
        answer = httpx2.post(f"{server.url}/predict", json=QUESTION, timeout=30)
        assert (answer.status_code, answer.headers["connection"]) == (200, "close")
        body = {"messages": [{"role": "user", "content": QUESTION["question"]}], "stream": True}
        streamed = httpx2.post(f"{server.url}/v1/chat/completions", json=body, timeout=30)
        assert (streamed.status_code, streamed.headers["connection"]) == (200, "close")
        assert streamed.text.endswith("data: [DONE]\n\n")
        assert server.process.wait(30) == 0


def test_a_request_from_the_delay_has_all_of_the_drain_seconds(never_ending: Path) -> None:
    with Served(never_ending, "--drain-delay", "2", "--drain-seconds", "60") as server, ThreadPoolExecutor() as pool:
        server.process.terminate()
        until(lambda: status(f"{server.url}/health/ready") == 503)
        asked = pool.submit(httpx2.post, f"{server.url}/predict", json={**LONG, "max_new_tokens": 1500}, timeout=100)
        answer = asked.result().json()
        assert (answer["usage"]["completion_tokens"], answer["deadline_reached"]) == (1500, False)
        assert server.process.wait(30) == 0


def test_new_connections_are_refused_while_running_requests_finish(never_ending: Path) -> None:
    with Served(never_ending) as server, ThreadPoolExecutor() as pool:
        asked = pool.submit(httpx2.post, f"{server.url}/predict", json=LONG, timeout=60)
        until(lambda: server.metric("kickoff_running") == 1)
        server.process.terminate()
        until(lambda: refused(server.port))
        assert not asked.done(), "the running request goes on"
        assert asked.result().json()["usage"]["completion_tokens"] > 0


def refused(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=5).close()
    except ConnectionRefusedError:
        return True
    return False


@pytest.mark.parametrize("options", [(), ("--drain-delay", "60")], ids=["while it drains", "in the delay"])
def test_a_second_ctrl_c_ends_it(options: tuple[str, ...], never_ending: Path) -> None:
    with Served(never_ending, *options, "--drain-seconds", "60") as server, ThreadPoolExecutor() as pool:
        everybody = psutil.Process(server.process.pid).children(recursive=True)
        asked = pool.submit(httpx2.post, f"{server.url}/predict", json=LONG, timeout=60)
        until(lambda: server.metric("kickoff_running") == 1)
        os.killpg(server.process.pid, signal.SIGINT)
        until(lambda: refused(server.port) or status(f"{server.url}/health/ready") == 503)
        assert not asked.done()
        os.killpg(server.process.pid, signal.SIGINT)
        assert server.process.wait(5) == 130
        until(lambda: not any(lives(one) for one in everybody))
        assert isinstance(asked.exception(), httpx2.TransportError)
        assert "Traceback" not in server.output()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
@pytest.mark.parametrize("path", [r"/api/models/", r"/resolve/|^/lfs/"], ids=["listing", "files"])
def test_a_signal_during_a_download_ends_it(
    number: signal.Signals, code: int, path: str, hub: HubServer, published: Path, tmp_path: Path
) -> None:
    HfApi().create_repo("ada/tiny")
    HfApi().upload_folder(repo_id="ada/tiny", folder_path=published)
    hub.fail("GET", path, hang=True, times=100)
    environment = {**os.environ, "HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path), "HF_HUB_DISABLE_XET": "1"}
    process = subprocess.Popen(
        [sys.executable, "-m", "serve", "ada/tiny"], cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True
    )
    until(lambda: bool(hub._hanging))
    process.send_signal(number)
    said = process.communicate(timeout=5)[1]
    assert process.returncode == code
    assert said.endswith("stopped before the server started\n")
    assert "Traceback" not in said
