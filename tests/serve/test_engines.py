"""Several engines behind one address: the least loaded takes a request, and the end of one is not the others' end."""

import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx2
import psutil
import pytest
from checkout import ROOT
from processes import LONG, ask, lives, status, until
from served import Served
from tiny import ROWS

from serve.worker import HTTP_GONE

QUESTION = {"question": ROWS[1]["question"]}


def each(server: Served, metric: str) -> list[float]:
    return [server.metric(metric, engine=number) for number in ("0", "1")]


def both_up(server: Served) -> None:
    """The server is ready with its first engine."""
    until(lambda: each(server, "kickoff_engine_up") == [1, 1], 60)


def test_the_least_loaded_takes_the_request(never_ending: Path, pool: ThreadPoolExecutor) -> None:
    with Served(never_ending, "--workers", "2", "--drain-seconds", "3") as server:
        both_up(server)
        asked = ask(pool, server, 4)
        until(lambda: each(server, "kickoff_engine_running") == [2, 2])
        assert server.metric("kickoff_running") == 4
        server.stop()
        assert [one.result().status_code for one in asked] == [200] * 4


def test_engines_have_the_places_together(never_ending: Path, pool: ThreadPoolExecutor) -> None:
    with Served(
        never_ending, "--workers", "2", "--max-running", "1", "--max-waiting", "0", "--drain-seconds", "3"
    ) as server:
        both_up(server)
        asked = ask(pool, server, 2)
        refused = httpx2.post(f"{server.url}/predict", json=LONG, timeout=30)
        assert (refused.status_code, refused.json()["error"]["code"]) == (429, "overloaded")
        server.stop()
        assert [one.result().status_code for one in asked] == [200] * 2


def test_the_death_of_an_engine_fails_only_its_requests(never_ending: Path, pool: ThreadPoolExecutor) -> None:
    with Served(never_ending, "--workers", "2", "--drain-seconds", "5") as server:
        both_up(server)
        asked = ask(pool, server, 2)
        until(lambda: each(server, "kickoff_engine_running") == [1, 1])
        dead = server.children()["engine"]
        dead.kill()
        until(lambda: any(one.done() for one in asked))
        (failed,) = [one for one in asked if one.done()]
        (going_on,) = [one for one in asked if one is not failed]
        assert failed.result().json()["error"]["code"] == "engine_died"
        assert status(f"{server.url}/health/ready") == 200, "the other one takes requests"
        both_up(server)
        assert not going_on.done()
        server.stop()
        assert going_on.result().status_code == 200


def test_a_hung_engine_gets_no_request_and_is_replaced(published: Path, pool: ThreadPoolExecutor) -> None:
    with Served(published, "--workers", "2", "--hang-seconds", "8") as server:
        both_up(server)
        hung = server.children()["engine"]
        hung.suspend()
        until(lambda: max(each(server, "kickoff_engine_heartbeat_age_seconds")) > 4)
        assert status(f"{server.url}/health/ready") == 200
        answers = pool.map(lambda _: httpx2.post(f"{server.url}/predict", json=QUESTION, timeout=30), range(4))
        assert [answer.status_code for answer in answers] == [200] * 4
        until(lambda: not lives(hung), 30)
        both_up(server)


def test_answers_are_the_same_from_each(published: Path, pool: ThreadPoolExecutor) -> None:
    with Served(published, "--workers", "2") as server:
        both_up(server)
        body = {**QUESTION, "temperature": 1, "seed": 3}
        answers = pool.map(lambda _: httpx2.post(f"{server.url}/predict", json=body, timeout=30).json(), range(8))
        assert len({answer["answer"] for answer in answers}) == 1
        assert min(each(server, "kickoff_engine_steps")) > 0


@pytest.mark.parametrize("engine", ["engine", "engine 1"])
def test_an_engine_that_dies_before_it_is_ready_ends_the_server_with_2(engine: str, published: Path) -> None:
    server = Served(published, "--workers", "2")
    server.start()
    until(lambda: len(server.children()) == 3 and engine in server.children(), 60)
    server.children()[engine].kill()
    assert server.process.wait(30) == 2
    assert server.output().count("before it was ready") == 1


def test_no_process_is_left_behind(published: Path) -> None:
    with Served(published, "--workers", "2") as server:
        both_up(server)
        everybody = psutil.Process(server.process.pid).children(recursive=True)
        assert server.stop() == 0
        until(lambda: not any(lives(one) for one in everybody))


STEPPING = """
import sys, types
from pathlib import Path
from serve import worker
from serve.shared import Shared

class Engine:
    limits = types.SimpleNamespace(context=9, vocabulary=9)
    idle, steps, running, waiting = False, 0, 0, 0

    def step(self):
        if sys.argv[2] == "no file":
            raise OSError(24, "Too many open files")
        return []

    def failures(self):
        return []

worker._load_or_exit = lambda *_: Engine()
worker.EngineLoop().run(types.SimpleNamespace(socket=Path(sys.argv[1]), shared=Shared(1)), "cpu", 0)
"""
"""An engine's process whose steps do nothing, or fail for a reason of the system."""


@pytest.mark.parametrize(("end", "code"), [("no file", 1), ("no HTTP process", HTTP_GONE)])
def test_only_an_engine_whose_http_process_is_gone_says_so(end: str, code: int, tmp_path: Path) -> None:
    """Whatever else the system refuses it is its own end: the server starts it anew instead of leaving."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(tmp_path / "engine"))
        listener.listen()
        process = subprocess.Popen(
            [sys.executable, "-c", STEPPING, str(tmp_path / "engine"), end], cwd=ROOT, stderr=subprocess.PIPE, text=True
        )
        connection, _ = listener.accept()
        if end == "no HTTP process":
            connection.recv(1)
            connection.close()
        _, said = process.communicate(timeout=60)
        connection.close()
    assert process.returncode == code, said
    assert ("Too many open files" in said) == (end == "no file")
