"""The server's processes: started, killed, hung, stopped, as the system would do it. Nobody is left hanging."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx2
import psutil
import pytest
from checkout import ROOT
from processes import LONG, ask, lives, status, until
from served import Served


def test_a_killed_engine_fails_its_requests_at_once_and_restarts(never_ending: Path, pool: ThreadPoolExecutor) -> None:
    with Served(never_ending) as server:
        asked = ask(pool, server, 3)
        streamed: list[str] = []

        def stream() -> None:
            with httpx2.stream("POST", f"{server.url}/predict", json={**LONG, "stream": True}, timeout=60) as response:
                streamed.extend(response.iter_lines())

        reader = threading.Thread(target=stream)
        reader.start()
        until(lambda: server.metric("kickoff_running") == 4)
        server.children()["engine"].kill()
        killed = time.monotonic()
        answers = [one.result() for one in asked]
        reader.join()
        assert time.monotonic() - killed < 2
        assert [one.status_code for one in answers] == [503] * 3
        assert answers[0].json()["error"]["code"] == "engine_died"
        assert streamed[-3] == "event: error"
        assert status(f"{server.url}/health/live") == 200, "it is restarting"
        assert httpx2.post(f"{server.url}/predict", json=LONG).status_code == 503
        until(lambda: status(f"{server.url}/health/ready") == 200)
        assert status(f"{server.url}/health/live") == 200
        again = httpx2.post(f"{server.url}/predict", json={**LONG, "max_new_tokens": 3}, timeout=60)
        assert again.json()["usage"]["completion_tokens"] == 3


def test_an_engine_that_dies_again_and_again_ends_the_server(published: Path) -> None:
    with Served(published) as server:
        for _ in range(4):
            until(lambda: status(f"{server.url}/health/ready") == 200 or server.process.poll() is not None, 40)
            if server.process.poll() is None:
                server.children()["engine"].kill()
                until(lambda: status(f"{server.url}/health/ready") != 200)
        assert server.process.wait(15) == 1
        assert "the engine died 4 times" in server.output()


def test_a_hung_engine_is_killed_and_replaced(never_ending: Path, pool: ThreadPoolExecutor) -> None:
    with Served(never_ending, "--hang-seconds", "3") as server:
        (asked,) = ask(pool, server)
        engine = server.children()["engine"]
        engine.suspend()
        assert asked.result().json()["error"]["code"] == "engine_died"
        until(lambda: not lives(engine))
        until(lambda: status(f"{server.url}/health/ready") == 200, 60)
        assert status(f"{server.url}/health/live") == 200


def suspended_while_it_loads(server: Served, *before: psutil.Process) -> psutil.Process:
    """The engine that comes after these, as soon as there is one."""
    until(lambda: "engine" in server.children() and server.children()["engine"] not in before, 40)
    engine = server.children()["engine"]
    engine.suspend()
    return engine


def test_an_engine_that_hangs_while_reloading_is_killed_and_replaced(published: Path) -> None:
    with Served(published, "--hang-seconds", "2") as server:
        first = server.children()["engine"]
        first.kill()
        second = suspended_while_it_loads(server, first)
        assert status(f"{server.url}/health/live") == 200, "it has its time"
        assert status(f"{server.url}/health/ready") == 503
        until(lambda: not lives(second), 30)
        until(lambda: status(f"{server.url}/health/ready") == 200, 60)
        server.stop()
        assert "it did nothing for 5 s while it loaded, killing it" in server.output()


def test_engines_that_hang_again_and_again_while_they_load_end_the_server(published: Path) -> None:
    with Served(published, "--hang-seconds", "2") as server:
        hung = [server.children()["engine"]]
        hung[0].kill()
        for _ in range(3):
            hung.append(suspended_while_it_loads(server, *hung))
            until(lambda: not lives(hung[-1]), 30)
        assert server.process.wait(30) == 1
        assert "the engine died 4 times" in server.output()


def test_an_engine_that_hangs_the_first_time_it_loads_is_refused(published: Path) -> None:
    server = Served(published, "--hang-seconds", "2")
    server.start()
    suspended_while_it_loads(server)
    assert server.process.wait(60) == 2
    assert "the engine was killed, since it did nothing for 5 s, before it was ready" in server.output()


def test_an_engine_killed_before_it_was_ready_is_not_restarted(published: Path) -> None:
    server = Served(published)
    server.start()
    until(lambda: "engine" in server.children(), 40)
    server.children()["engine"].kill()
    assert server.process.wait(30) == 2
    assert "before it was ready" in server.output()


def test_a_killed_http_process_ends_the_server(published: Path) -> None:
    with Served(published) as server:
        children = server.children()
        children["http"].kill()
        assert server.process.wait(15) == 1
        until(lambda: not any(lives(child) for child in children.values()))


def test_a_killed_main_process_leaves_no_process_behind(published: Path) -> None:
    with Served(published) as server:
        everybody = psutil.Process(server.process.pid).children(recursive=True)
        server.process.kill()
        server.process.wait()
        until(lambda: not any(lives(one) for one in everybody))
        assert status(f"{server.url}/health/live") == 0, "nobody listens"


@pytest.mark.parametrize("signal_", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_lets_running_requests_finish(
    signal_: signal.Signals, never_ending: Path, pool: ThreadPoolExecutor
) -> None:
    with Served(never_ending, "--drain-delay", "1") as server:
        everybody = psutil.Process(server.process.pid).children(recursive=True)
        asked = [
            pool.submit(httpx2.post, f"{server.url}/predict", json={**LONG, "max_new_tokens": 500}, timeout=60)
            for _ in range(2)
        ]
        until(lambda: server.metric("kickoff_running") == 2)
        # the terminal sends Ctrl-C to every process, an orchestrator sends SIGTERM to the first alone
        for process in [*everybody, server.process] if signal_ == signal.SIGINT else [server.process]:
            os.kill(process.pid, signal_)
        if signal_ == signal.SIGTERM:
            until(lambda: status(f"{server.url}/health/ready") == 503)
            assert status(f"{server.url}/health/live") == 200
        assert [one.result().json()["usage"]["completion_tokens"] for one in asked] == [500, 500]
        assert server.process.wait(30) == 0
        until(lambda: not any(lives(one) for one in everybody))


def test_answers_that_do_not_finish_in_time_are_returned_partially(
    never_ending: Path, pool: ThreadPoolExecutor
) -> None:
    with Served(never_ending, "--drain-seconds", "1") as server:
        (asked,) = ask(pool, server)
        server.process.terminate()
        answer = asked.result().json()
        assert (answer["finish_reason"], answer["deadline_reached"]) == ("length", True)
        assert 0 < answer["usage"]["completion_tokens"] < 4000
        assert server.process.wait(30) == 0


def test_the_port_opens_while_the_model_loads(published: Path) -> None:
    server = Served(published)
    server.start()
    try:
        until(lambda: status(f"{server.url}/health/live") == 200)
        seen = status(f"{server.url}/health/ready")
        refused = httpx2.post(f"{server.url}/predict", json=LONG)
        assert seen == 503
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "not_ready")
        assert refused.headers["retry-after"] == "2"
        server.wait_ready()
        assert status(f"{server.url}/health/ready") == 200
    finally:
        server.stop()


def test_a_model_that_cannot_be_loaded_is_refused_with_a_code(published: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(published, tmp_path / "broken"))
    (folder / "model.safetensors").write_bytes(b"\x08\0\0\0\0\0\0\0{}      ")
    server = Served(folder)
    server.start()
    assert server.process.wait(40) == 2
    assert "cannot be served" in server.output()


def test_a_model_that_fails_to_reload_once_is_not_refused(published: Path, tmp_path: Path) -> None:
    """The next load may have the memory; and the end of the server still has its reason in the log."""
    folder = Path(shutil.copytree(published, tmp_path / "model"))
    weights, away = folder / "model.safetensors", tmp_path / "away"
    with Served(folder) as server:
        weights.rename(away)
        server.children()["engine"].kill()
        until(lambda: "engine: the model could not be reloaded: " in server.output(), 60)
        away.rename(weights)
        until(lambda: status(f"{server.url}/health/ready") == 200, 60)
        server.children()["http"].kill()
        assert server.process.wait(15) == 1
        assert "cannot be served" not in server.output()
        assert "server: the HTTP process died, exiting" in server.output()


def test_the_log_says_after_how_long_the_engine_was_ready(published: Path) -> None:
    """All of the time of its process, most of which goes by before it reads the model."""
    with Served(published) as server:
        engine = server.children()["engine"]
        lived = time.time() - engine.create_time()
        (said,) = re.findall(r"engine: ready after ([\d.]+) s on cpu", server.output())
        used = sum(engine.cpu_times()[:2])
        assert used / 2 < float(said) <= lived


def test_a_taken_port_is_an_error(published: Path) -> None:
    server = Served(published)
    with socket.create_server(("127.0.0.1", server.port)):
        server.start()
        assert server.process.wait(30) == 2
        assert "Address already in use" in server.output()


def test_as_pid_1_a_signal_ends_it(published: Path) -> None:
    """In a container the server is process 1, to which signals without a handler are nothing."""
    server = Served(published)
    command = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child", *server._command]
    process = subprocess.Popen(command, cwd=ROOT, env=server._environment)
    try:
        until(lambda: status(f"{server.url}/health/ready") == 200, 40)
        (first,) = psutil.Process(process.pid).children()
        first.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
    finally:
        process.kill()


def test_nothing_is_written_where_it_is_started(published: Path, tmp_path: Path) -> None:
    server = Served(published)
    process = subprocess.Popen(
        [sys.executable, "-m", "serve", str(published), "--port", str(server.port)],
        cwd=tmp_path, env=server._environment,
    )  # fmt: skip
    until(lambda: status(f"{server.url}/health/ready") == 200, 40)
    process.terminate()
    assert process.wait(30) == 0
    assert json.dumps(sorted(path.name for path in tmp_path.iterdir())) == "[]"
