"""Publishing to a Hub that fails at each request of the upload in turn, and publishing again.

From the n-th request on the test Hub does nothing but fail in one way: the job has to end with 5 within its bound, or
with 0 if the failure came too late to matter. Then the Hub is well again, the printed command is run, and the
repository must hold the old model or the new one, whole, in every commit that `main` ever had.
"""

import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from fault_points import at_once, chance, note
from fork_server import ForkServer
from hub_clients import TOKEN
from hub_server import HubServer

from job.errors import Exit

FAULTS: dict[str, dict[str, Any]] = {
    "500": {"status": 500},
    "503": {"status": 503},
    "429": {"status": 429, "headers": {"Retry-After": "1"}},
    "reset": {"reset": True},
    "never answers": {"hang": True},
    "answer lost": {"lose_answer": True},
}
OLD = {"README.md": b"an older model", "model.safetensors": b"its weights", "old.txt": b"and more of it"}
TIMEOUT = 1.0
BOUND_SECONDS = 90
"""Three attempts of ours, each with six tries of the client, 23 s apart in all: 75 s, and time to compute."""


@contextmanager
def hub_with_an_old_model() -> Iterator[HubServer]:
    with HubServer() as server:
        server.users = {TOKEN: {"name": "ada", "role": "write"}}
        server.add_repo("models", "ada/sums", OLD)
        yield server


def environment(server: HubServer, folder: Path) -> dict[str, str]:
    return {"HF_ENDPOINT": server.url, "HF_HUB_CACHE": str(folder / "cache"), "HF_TOKEN": TOKEN}


def publish(jobs: ForkServer, server: HubServer, reference: Path, folder: Path) -> Any:
    options = [f"output={folder}/run", "publish.repo=ada/sums", f"publish.timeout_seconds={TIMEOUT}"]
    options += ["publish.replace=true"]  # the older model is not one of Kickoff's
    return jobs.run(folder, "publish", f"{reference}/run/run.yaml", *options, environment=environment(server, folder))


def cut(jobs: ForkServer, reference: Path, folder: Path, number: int, fault: str, times: int) -> dict[str, Any]:
    """One point: the upload is cut at its n-th request, then run again."""
    folder.mkdir()
    shutil.copytree(reference / "run", folder / "run")
    with hub_with_an_old_model() as server:
        server.fail("*", "", skip=number, times=times, **FAULTS[fault])
        started = time.monotonic()
        first = publish(jobs, server, reference, folder)
        seconds = time.monotonic() - started
        server.clear_faults()
        again = publish(jobs, server, reference, folder)
        commits = server.commits("models", "ada/sums")
        right = {path.name: path.read_bytes() for path in (folder / "run/model").iterdir()}
        told = f"python -m job publish {folder}/run/run.yaml" in first.last_line()
        before = "does not answer" in first.last_line()  # the Hub failed before the upload began
        return {
            "point": f"{fault} at request {number + 1}",
            "survived": first.code == Exit.DONE or (first.code == Exit.PUBLISH and (told or before)),
            "in time": seconds < BOUND_SECONDS,
            "equal": again.code == Exit.DONE and commits[0].files == right,
            "wrong": [commit.sha for commit in commits if commit.files not in (OLD, right)],
            "commits": len(commits),
            "seconds": seconds,
            "said": [first.code, first.last_line(), again.code, again.last_line()],
        }


def count_requests(jobs: ForkServer, reference: Path, folder: Path) -> int:
    folder.mkdir()
    shutil.copytree(reference / "run", folder / "run")
    with hub_with_an_old_model() as server:
        run = publish(jobs, server, reference, folder)
        assert run.code == Exit.DONE, run.text()
        return len(server.requests)


def cut_all(jobs: ForkServer, reference: Path, tmp_path: Path, points: list[tuple[int, str, int]], title: str) -> None:
    found = at_once(
        lambda point: cut(jobs, reference, tmp_path / "-".join(map(str, point)).replace(" ", "-"), *point), points, 24
    )
    note(title, found)
    assert not [one for one in found if not (one["survived"] and one["in time"] and one["equal"])]
    assert not [one for one in found if one["wrong"] or one["commits"] != 2]


@pytest.mark.faults
@pytest.mark.timeout(1800)
def test_cut_at_every_request(jobs: ForkServer, reference: Path, tmp_path: Path) -> None:
    requests = count_requests(jobs, reference, tmp_path / "count")
    points = [(number, fault, 10_000) for fault in FAULTS for number in range(requests)]
    cut_all(jobs, reference, tmp_path, points, "upload, the Hub fails from a request on")


@pytest.mark.faults
@pytest.mark.timeout(1800)
def test_one_request_that_fails(jobs: ForkServer, reference: Path, tmp_path: Path) -> None:
    requests = count_requests(jobs, reference, tmp_path / "count")
    points = [(number, fault, 1) for fault in FAULTS for number in range(requests)]
    cut_all(jobs, reference, tmp_path, points, "upload, one request fails")


def test_cut_at_some_requests(jobs: ForkServer, reference: Path, tmp_path: Path) -> None:
    random = chance("upload sample")
    points = [(random.randrange(25), fault, 1) for fault in random.sample(list(FAULTS), 3)]
    cut_all(jobs, reference, tmp_path, [*points, (8, "reset", 10_000)], "upload, sample")
