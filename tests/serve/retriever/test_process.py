"""A served retriever as processes: an engine that is killed, what each process imports, and a model from the Hub."""

import subprocess
import sys
import time
from pathlib import Path

import httpx2
from hub_server import HubServer
from served import Served
from tiny_retriever import DNS

from serve.repository import find

SECONDS = 60
ROOT = Path(__file__).parents[3]
BODY = {"question": "What is DNS?"}


def test_an_engine_that_is_killed_is_replaced(retriever_folder: Path) -> None:
    with Served(retriever_folder) as server:
        assert httpx2.post(f"{server.url}/predict", json=BODY, timeout=SECONDS).json()["answer"] == DNS
        server.children()["engine"].kill()
        give_up = time.monotonic() + SECONDS
        answers = []
        while time.monotonic() < give_up and 200 not in answers[-1:]:
            response = httpx2.post(f"{server.url}/predict", json=BODY, timeout=SECONDS)
            answers.append(response.status_code)
            time.sleep(0.2)
        assert set(answers) == {200, 503}
        assert response.json()["answer"] == DNS
        assert server.stop() == 0


def test_two_engines_answer(retriever_folder: Path) -> None:
    with Served(retriever_folder, "--workers", "2") as server:
        give_up = time.monotonic() + SECONDS
        while server.metric("kickoff_engine_up") < 2:
            assert time.monotonic() < give_up
            time.sleep(0.1)
        assert httpx2.post(f"{server.url}/predict", json=BODY, timeout=SECONDS).json()["answer"] == DNS


def test_the_http_process_needs_no_torch() -> None:
    code = (
        "import sys, serve.server, serve.http.retrieve, serve.http.tokens; "
        "print(sorted({'torch', 'transformers', 'sentence_transformers', 'pyarrow'} & sys.modules.keys()))"
    )
    ended = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert ended.stdout == "[]\n"


def test_from_the_hub_only_what_is_needed_at_one_commit(retriever_folder: Path, hub: HubServer) -> None:
    files = {
        path.relative_to(retriever_folder).as_posix(): path.read_bytes()
        for path in retriever_folder.rglob("*")
        if path.is_file()
    }
    extra = {"loss.png": b"picture", "onnx/model.onnx": b"copy", "pytorch_model.bin": b"pickle"}
    sha = hub.add_repo("models", "ada/finder", {**files, **extra})
    found = find("ada/finder", "main")
    assert (found.name, found.revision, found.is_retriever) == ("ada/finder", sha, True)
    there = {path.relative_to(found.folder).as_posix() for path in found.folder.rglob("*") if path.is_file()}
    assert there == files.keys()
    hub.fail("*", ".*", status=503, times=1000)
    assert find("ada/finder", sha) == found
    with Served("ada/finder", "--revision", sha, HF_HUB_CACHE=str(found.folder.parents[2]), HF_HUB_OFFLINE="1") as one:
        assert httpx2.post(f"{one.url}/predict", json=BODY, timeout=SECONDS).json()["revision"] == sha
