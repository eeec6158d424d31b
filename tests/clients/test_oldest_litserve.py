"""The server on the oldest LitServe that is allowed: it answers, starts a dead engine anew and stops."""

import subprocess
from pathlib import Path

import httpx2
import pytest
from checkout import ENVIRONMENTS, ROOT
from processes import lives, status, until
from served import Served
from tiny import ROWS

pytestmark = [pytest.mark.clients, pytest.mark.timeout(240)]
PYTHON = ENVIRONMENTS / "litserve" / "bin" / "python"


def answer(server: Served) -> str:
    response = httpx2.post(f"{server.url}/predict", json={"question": ROWS[1]["question"]}, timeout=60)
    return str(response.json()["answer"])


def test_a_server_on_the_oldest_litserve(published: Path) -> None:
    version = "import importlib.metadata; print(importlib.metadata.version('litserve'))"
    found = subprocess.run([PYTHON, "-c", version], capture_output=True, text=True, check=True).stdout.strip()
    assert f"litserve=={found}" in (ROOT / "tests" / "clients" / "litserve.txt").read_text().splitlines()
    with Served(published, python=PYTHON) as server:
        assert answer(server) == ROWS[1]["answer"]
        dead = server.children()["engine"]
        dead.kill()
        until(lambda: not lives(dead) and status(f"{server.url}/health/ready") != 200)
        until(lambda: status(f"{server.url}/health/ready") == 200, 60)
        assert server.children()["engine"].pid != dead.pid
        assert answer(server) == ROWS[1]["answer"]
        assert server.stop() == 0
        assert "engine: died (exit code -9), restarting it" in server.output()
