"""The two images in real containers: read-only, not root, without network where none is needed. `make image-test`.

It needs a container engine behind `docker` and builds with `make image`; the base image can be a stand-in without CUDA.
"""

import json
import os
import shutil
import subprocess
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx2
import pytest
import yaml
from checkout import ROOT
from containers import DEMO, HARDENED, JOB, SERVE, USER, docker, job, mounts, run, succeeds
from hub_clients import TOKEN
from served import free_port
from tiny import endless

from job.errors import Exit

pytestmark = [pytest.mark.image, pytest.mark.timeout(1200)]

SMALL, SMALLISH = (("--tmpfs", f"/work/small:size={mebibytes}m") for mebibytes in (1, 2))


def state(id: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(succeeds("inspect", id))[0]["State"]
    return found


def wait_until(true: Any, seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.2)


def answers(url: str) -> bool:
    try:
        return httpx2.get(f"{url}/health/ready", timeout=5).status_code == 200
    except httpx2.HTTPError:
        return False


def test_from_the_demos_config_to_an_answer(work: Path, tiny_base: Path, container: list[str]) -> None:
    done = job(work, tiny_base, *DEMO, options=("-e", f"HF_TOKEN={TOKEN}"))
    assert done.returncode == Exit.DONE, done.stdout + done.stderr
    assert done.stdout.splitlines()[-1].startswith("done: published runs/soccer-published")
    assert TOKEN not in done.stdout + done.stderr
    published = work / "runs" / "soccer-published"
    assert {path.stat().st_uid for path in published.rglob("*")} == {USER}

    options = (*HARDENED, "-p", "127.0.0.1::8000", "-v", f"{work}/runs:/work/runs:ro")
    container.append(succeeds("run", "-d", *options, SERVE, "runs/soccer-published"))
    port = succeeds("port", container[0], "8000").rpartition(":")[2]
    url = f"http://127.0.0.1:{port}"
    wait_until(lambda: answers(url))
    response = httpx2.post(f"{url}/predict", json={"question": "How long is a match?"}, timeout=60)
    assert response.status_code == 200
    assert response.json()["usage"]["completion_tokens"] >= 1
    assert response.json()["revision"].startswith("sha256:")
    began = time.monotonic()
    succeeds("stop", "-t", "45", container[0])
    assert time.monotonic() - began < 40, "it left by itself, and was not killed"
    assert state(container[0])["ExitCode"] == 0


@pytest.fixture
def slow_model(fetched: Path) -> Iterator[str]:
    """A model under runs/, where `make serve-image` looks, whose answers go on for a minute."""
    folder = ROOT / "runs" / f"image-test-{uuid.uuid4().hex}"
    folder.parent.mkdir(exist_ok=True)
    yield str(endless(fetched, folder, context=16384).relative_to(ROOT))
    shutil.rmtree(folder)


def test_docker_stop_lets_a_running_request_finish(slow_model: str) -> None:
    """`docker stop` as people type it, without seconds: it would kill after 10, and the answer takes 20."""
    port = free_port()
    url, earlier = f"http://127.0.0.1:{port}", set(succeeds("ps", "-q").split())
    command = ["make", "serve-image", "GPUS=", f"MODEL={slow_model}", f"PORT={port}"]
    made = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    wait_until(lambda: answers(url) or made.poll() is not None)
    (id,) = set(succeeds("ps", "-q").split()) - earlier
    found = json.loads(succeeds("inspect", id))[0]
    assert "NVIDIA_VISIBLE_DEVICES=void" in found["Config"]["Env"]
    with ThreadPoolExecutor() as pool:
        body, headers = {"question": "Go on."}, {"X-Request-Timeout": "20"}
        asked = pool.submit(httpx2.post, f"{url}/predict", json=body, headers=headers, timeout=60)
        wait_until(lambda: "kickoff_running 1.0" in httpx2.get(f"{url}/metrics").text)
        succeeds("stop", id)
        assert (asked.result().status_code, asked.result().json()["deadline_reached"]) == (200, True)
    output, _ = made.communicate(timeout=60)
    assert made.returncode == 0, output


def test_make_train_ends_as_the_job_does(tmp_path: Path) -> None:
    config = tmp_path / "wrong.yaml"
    config.write_text("train: {epochs: five}\n")
    done = subprocess.run(["make", "train", "GPUS=", f"CONFIG={config}"], cwd=ROOT, capture_output=True, text=True)
    assert "found 'five', expected a whole number" in done.stdout
    assert f"Error {Exit.CONFIG:d}" in done.stderr


def test_a_signal_reaches_the_job(work: Path, tiny_base: Path, container: list[str]) -> None:
    overrides = ("train.epochs=1000", "train.save_steps=5")
    container.append(
        succeeds("run", "-d", "--network", "none", *HARDENED, *mounts(work, tiny_base), JOB, *DEMO, *overrides)
    )
    wait_until(lambda: list(work.glob("runs/soccer-offline/checkpoints/step-*")))
    succeeds("stop", "-t", "60", container[0])
    output = succeeds("logs", container[0])
    assert state(container[0])["ExitCode"] == Exit.INTERRUPTED, output
    assert "checkpoint complete; run the same command again" in output.splitlines()[-1]


@pytest.mark.parametrize(
    ("arguments", "options", "code", "says"),
    [
        ((), (), Exit.CONFIG, "/config/config.yaml"),
        ((*DEMO, "train.epochs=0"), (), Exit.CONFIG, "train.epochs: found 0, expected"),
        ((*DEMO, "dataset.file=nowhere.json", "dataset.test=null"), (), Exit.DATA, "nowhere.json: no such file"),
        ((*DEMO, "output=elsewhere"), (), Exit.CONFIG, "elsewhere: Read-only file system; mount it writable for user"),
        ((*DEMO, "train.device=gpu"), (), Exit.CONFIG, "--gpus all"),
        ((*DEMO, "output=small/run"), SMALL, Exit.FAILED, "No space left on device"),
        ((*DEMO, "output=small/run", "train.save_steps=1"), SMALLISH, Exit.FAILED, "device: 'small/run/checkpoints"),
    ],
    ids=["no config", "bad config", "no data", "read-only run folder", "no GPU", "full disk", "full in a checkpoint"],
)
def test_what_cannot_work_ends_with_one_line_and_its_code(
    arguments: tuple[str, ...], options: tuple[str, ...], code: Exit, says: str, work: Path, tiny_base: Path
) -> None:
    done = job(work, tiny_base, *arguments, options=options)
    assert done.returncode == code, done.stdout + done.stderr
    assert says in done.stdout.splitlines()[-1]
    assert "Traceback" not in done.stdout + done.stderr
    assert list(work.glob("runs/*/model")) == []


def test_too_little_memory_is_a_kill(work: Path, tiny_base: Path) -> None:
    assert job(work, tiny_base, *DEMO, options=("--memory", "80m", "--memory-swap", "80m")).returncode == 137


def test_a_server_without_a_model_ends_with_2() -> None:
    done = run("--network", "none", *HARDENED, SERVE, "runs/nothing")
    assert done.returncode == 2
    assert done.stderr.strip().splitlines()[-1].startswith("error: runs/nothing")


@pytest.fixture
def network() -> Iterator[str]:
    name = f"kickoff-test-{os.getpid()}"
    succeeds("network", "create", "--subnet", "10.89.77.0/24", name)
    yield name
    succeeds("network", "rm", name)


def test_two_containers_are_two_nodes(work: Path, tiny_base: Path, network: str, container: list[str]) -> None:
    hosts = {f"node{rank}": f"10.89.77.{10 + rank}" for rank in range(2)}
    launch = (
        *("-m", "job.launch", "--nnodes=2", "--nproc-per-node=1", "--rdzv-backend=c10d"),
        *("--rdzv-endpoint=node0:29400", "--rdzv-id=test", "-m", "job"),
    )
    for name, address in hosts.items():
        options = [part for other, ip in hosts.items() for part in ("--add-host", f"{other}:{ip}")]
        container.append(
            succeeds(
                "run",
                "-d",
                "--network",
                network,
                "--ip",
                address,
                "--hostname",
                name,
                *options,
                *HARDENED,
                "--entrypoint",
                "python",
                *mounts(work, tiny_base),
                JOB,
                *launch,
                *DEMO,
            )  # fmt: skip
        )
    wait_until(lambda: not any(state(id)["Running"] for id in container), 240)
    logs = [docker("logs", id) for id in container]
    output = "".join(log.stdout + log.stderr for log in logs)
    assert [state(id)["ExitCode"] for id in container] == [0, 0], output
    assert json.loads((work / "runs" / "soccer-offline" / "training.json").read_text())["processes"] == 2
    assert output.count("done: published") == 1
    run = yaml.safe_load((work / "runs" / "soccer-offline" / "run.yaml").read_text())
    assert run["train"]["epochs"] == 1
