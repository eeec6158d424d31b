"""Asking at /predict, whole or as a stream, and waiting for what the metrics say."""

import json
import time
from collections.abc import Callable
from typing import Any

import httpx2
from served import Served
from tiny import ROWS

QUESTION, ANSWER = ROWS[1]["question"], ROWS[1]["answer"]
SECONDS = 60
"""Patience with a machine that is shared with others; nothing here takes a tenth of it on an idle one."""


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
