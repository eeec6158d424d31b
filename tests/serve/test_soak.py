"""A soak with faults: afterwards no place and no file is held, no memory has grown, and no answer was wrong.

Twenty seconds here; `make soak` takes ten minutes (SOAK_SECONDS).
"""

import os
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import Random

import httpx2
import pytest
from checkout import ROOT
from processes import status, until
from served import Served
from soak import NO_MEMORY, OPTIONS, TROUBLES, TURNED_AWAY, Soak, question
from tiny import ROWS

SECONDS = float(os.environ.get("SOAK_SECONDS", "20"))
KNOWN = ROWS[:8]


def memory(server: Served) -> dict[str, float]:
    """MiB of each process."""
    return {name: process.memory_info().rss / 2**20 for name, process in server.children().items()}


def at_rest(server: Served) -> int:
    """The open files of the HTTP process, once nothing runs."""
    until(lambda: status(f"{server.url}/health") == 200, 60)
    until(lambda: server.metric("kickoff_running") + server.metric("kickoff_waiting") == 0, 30)
    process = server.children()["http"]
    until(lambda: len([one for one in process.net_connections("tcp") if one.status == "ESTABLISHED"]) == 0, 30)
    return process.num_fds()


def ask_once(server: Served, seed: int) -> str:
    """Of a server that is about to stop: right, turned away, or closed before a word was said."""
    try:
        with httpx2.Client(base_url=server.url, timeout=60) as client:
            _, code, got, expected = question(client, Random(seed), KNOWN)
    except httpx2.TransportError:
        return "closed"
    return "turned away" if code in TURNED_AWAY else "right" if got == expected else f"{code} {got!r} {expected!r}"


@pytest.mark.timeout(SECONDS + 300)
def test_a_soak_with_faults(published: Path, tmp_path: Path) -> None:
    folder = tmp_path.joinpath(*["x" * 250] * 14)  # its name stands in each chunk, and so unread ones are many bytes
    folder.mkdir(parents=True)
    (folder / "tiny").symlink_to(published)
    with Served(folder / "tiny", *OPTIONS, PYTHONPATH=f"{ROOT}:{ROOT}/tests/support/oom") as server:
        Soak(server, KNOWN, min(SECONDS / 4, 60), breaking=False).run()  # libraries and caches fill in the first minute
        files, before = at_rest(server), memory(server)
        soak = Soak(server, KNOWN, SECONDS, breaking=True)
        soak.run()
        now, after = at_rest(server), memory(server)
        print(f"{SECONDS:g} s: {dict(sorted(soak.outcomes.items()))}, MiB before {before}, after {after}")
        assert soak.wrong == []
        assert now == files
        assert {one.__name__ for one in TROUBLES} <= {name.split()[0] for name in soak.outcomes}
        assert soak.outcomes["predict right"] and soak.outcomes["chat streamed right"]
        assert soak.outcomes["killed engine"] and soak.outcomes["no memory"]
        assert server.output().count(NO_MEMORY) == soak.outcomes["no memory"], "and at no other time"
        assert server.output().count("engine: died") == soak.outcomes["killed engine"]
        assert all(after[name] < before[name] * 1.1 + 16 for name in before)
        with ThreadPoolExecutor(32) as pool:  # as many as there are places
            assert list(pool.map(lambda seed: ask_once(server, seed), range(32))) == ["right"] * 32
            asked = [pool.submit(ask_once, server, seed) for seed in range(32)]
            os.kill(server.process.pid, signal.SIGTERM)
            assert {one.result() for one in asked} <= {"right", "turned away", "closed"}
        assert server.process.wait(30) == 0
