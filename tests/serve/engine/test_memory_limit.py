"""A real lack of memory: the system gives the engine's process no more. Requests fail, and no answer is wrong."""

import resource
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx2
import psutil
import pytest
from served import Served

REPEATS = (40, 75, 110, 150, 190)
ROOM = 12 * 2**20


@pytest.mark.timeout(240)
def test_the_engine_survives_a_memory_limit(never_ending: Path) -> None:
    with Served(never_ending, "--max-running", "16", "--cache-bytes", str(2**32)) as server:

        def ask(repeats: int) -> httpx2.Response:
            body = {"question": "What is 3 plus 3? " * repeats, "max_new_tokens": 30}
            return httpx2.post(f"{server.url}/predict", json=body, timeout=60)

        alone = {repeats: ask(repeats).json()["answer"] for repeats in (1, *REPEATS)}
        engine = server.children()["engine"].pid
        resource.prlimit(engine, resource.RLIMIT_AS, (psutil.Process(engine).memory_info().vms + ROOM, -1))
        failed = 0
        with ThreadPoolExecutor(16) as pool:
            for _ in range(3):
                asked = [REPEATS[index % len(REPEATS)] for index in range(24)]
                for repeats, answer in zip(asked, pool.map(ask, asked), strict=True):
                    if answer.status_code == 200:
                        assert answer.json()["answer"] == alone[repeats]
                    else:
                        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "engine_failed")
                        failed += 1
        assert failed
        resource.prlimit(engine, resource.RLIMIT_AS, (-1, -1))
        give_up = time.monotonic() + 20
        while server.metric("kickoff_running") + server.metric("kickoff_waiting") and time.monotonic() < give_up:
            time.sleep(0.1)
        assert {repeats: ask(repeats).json().get("answer") for repeats in alone} == alone
        assert server.children()["engine"].pid == engine
        assert server.metric("kickoff_running") == server.metric("kickoff_waiting") == 0
