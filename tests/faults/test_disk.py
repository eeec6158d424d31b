"""A disk that is full: a real small one, filled while the job is at work."""

import contextlib
import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from fault_points import result
from fork_server import ForkServer
from hub_clients import TOKEN
from hub_server import HubServer
from tiny import ROWS

from job.errors import Exit


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 16 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", str(folder)], capture_output=True)
    if mounted.returncode:
        pytest.skip(f"no file system can be mounted here: {mounted.stderr.decode().strip()}")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(disk: Path) -> None:
    with (disk / "ballast").open("wb", buffering=0) as stream, contextlib.suppress(OSError):
        while True:
            stream.write(bytes(4096))


def test_full_at_a_checkpoint(jobs: ForkServer, reference: Path, small_disk: Path, tmp_path: Path) -> None:
    command = ["run", f"{reference}/config.yaml", f"output={small_disk}/run", "train.save_steps=3"]
    checkpoints = small_disk / "run/checkpoints"
    run = jobs.start(tmp_path, *command)
    run.until(lambda: len(list(checkpoints.glob("step-*"))) >= 2)
    fill(small_disk)
    assert run.wait() == Exit.FAILED, run.text()
    assert run.last_line().startswith("error (failed, exit 1): [Errno 28] No space left on device"), run.text()
    assert run.last_line().endswith("free or repair the disk and run the same command again")
    assert "Traceback" not in run.text()
    kept = {path.name for path in checkpoints.iterdir()}
    assert kept and not [name for name in kept if name.endswith(".partial")]
    (small_disk / "ballast").unlink()
    again = jobs.run(tmp_path, *command)
    assert again.code == Exit.DONE, again.text()
    assert "continuing from the checkpoint of step" in again.text()
    assert "passed over" not in again.text()
    assert result(small_disk / "run") == result(reference / "run")


def test_full_at_the_report(jobs: ForkServer, reference: Path, small_disk: Path, tmp_path: Path) -> None:
    shutil.copytree(reference / "run", small_disk / "run")
    before = {name: (small_disk / "run" / name).read_bytes() for name in ("report.html", "metrics.json", "loss.png")}
    command = ["run", f"{reference}/config.yaml", f"output={small_disk}/run"]
    fill(small_disk)
    run = jobs.run(tmp_path, *command)
    assert run.code == Exit.FAILED, run.text()
    assert "No space left on device" in run.last_line()
    assert "Traceback" not in run.text()
    assert {name: (small_disk / "run" / name).read_bytes() for name in before} == before
    (small_disk / "ballast").unlink()
    assert jobs.run(tmp_path, *command).code == Exit.DONE


@pytest.mark.faults
def test_full_in_the_cache(small_disk: Path, tmp_path: Path, tiny_base: Path) -> None:
    (tmp_path / "rows.json").write_text(json.dumps(ROWS))
    environment = {"HF_HUB_CACHE": f"{small_disk}/hub", "HF_DATASETS_CACHE": f"{small_disk}/datasets"}
    with HubServer() as server, ForkServer(HF_ENDPOINT=server.url, HF_TOKEN=TOKEN, **environment) as jobs:
        server.users = {TOKEN: {"name": "ada", "role": "write"}}
        server.add_repo("datasets", "ada/rows", {"rows.jsonl": "".join(map(json.dumps, ROWS)).encode()})
        server.add_repo("models", "ada/tiny", tiny_base)
        fill(small_disk)
        for dataset, base in ((f"file: {tmp_path}/rows.json", "ada/tiny"), ("name: ada/rows", tiny_base)):
            config = tmp_path / "config.yaml"
            config.write_text(
                f"dataset: {{{dataset}}}\nmodel: {{base: {base}, max_length: 64}}\noutput: {tmp_path}/run\n"
            )
            run = jobs.run(tmp_path, "run", str(config))
            assert run.code == Exit.FAILED, run.text()
            assert re.search("No space left on device|Not enough disk space", run.last_line())
            assert "free or repair the disk" in run.last_line()
            assert "Traceback" not in run.text()
