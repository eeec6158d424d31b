"""What becomes of a server's processes: whether they live, what they answer, and waiting until something holds."""

import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

import httpx2
import psutil
from served import Served

LONG = {"question": "What is 1 plus 1?", "max_new_tokens": 4000}


def until(holds: Callable[[], bool], seconds: float = 20) -> None:
    give_up = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < give_up, "it did not come to hold"
        time.sleep(0.05)


def status(url: str) -> int:
    """0 where nobody listens."""
    try:
        return httpx2.get(url).status_code
    except httpx2.TransportError:
        return 0


def lives(process: psutil.Process) -> bool:
    return process.is_running() and process.status() != psutil.STATUS_ZOMBIE


def ask(pool: ThreadPoolExecutor, server: Served, count: int = 1) -> list[Future[httpx2.Response]]:
    """Requests that take seconds, once they are running."""
    asked = [pool.submit(httpx2.post, f"{server.url}/predict", json=LONG, timeout=60) for _ in range(count)]
    until(lambda: server.metric("kickoff_running") == count)
    return asked
