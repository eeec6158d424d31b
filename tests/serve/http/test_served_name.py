"""The name under which clients meet the model."""

from pathlib import Path

import httpx2
from served import Served
from tiny import ROWS

MESSAGES = [{"role": "user", "content": ROWS[1]["question"]}]


def test_a_served_model_name_is_the_one_that_clients_see(published: Path) -> None:
    with Served(published, "--served-model-name", "soccer") as server:
        (listed,) = httpx2.get(f"{server.url}/v1/models").json()["data"]
        assert listed["id"] == "soccer"
        assert httpx2.get(f"{server.url}/v1/models/soccer").json() == listed
        for name, status in [("soccer", 200), (str(published), 200), ("other", 404)]:
            body = {"model": name, "messages": MESSAGES}
            answer = httpx2.post(f"{server.url}/v1/chat/completions", json=body, timeout=60)
            assert answer.status_code == status
            assert status == 404 or answer.json()["model"] == "soccer"
        assert httpx2.post(f"{server.url}/predict", json={"question": "Hello?"}, timeout=60).json()["model"] == "soccer"
        assert str(published) in httpx2.get(f"{server.url}/metrics").text, "the real one stays known"
