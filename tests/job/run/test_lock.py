"""The lock on a run folder: one job at a time, and nobody has to clean up after a process that died."""

import json
import os
import signal
import socket
from pathlib import Path

import pytest
from fork_server import ForkServer

from job.errors import Exit, KickoffError
from job.run import lock


def test_a_second_job_is_refused_naming_the_holder(tmp_path: Path) -> None:
    with lock.hold(tmp_path / "lock.json"), pytest.raises(KickoffError) as caught, lock.hold(tmp_path / "lock.json"):
        pass
    assert f"{tmp_path} is in use: process {os.getpid()} on {socket.gethostname()}" in str(caught.value)
    with lock.hold(tmp_path / "lock.json"):
        pass


def test_a_leftover_lock_file_does_not_lock(tmp_path: Path) -> None:
    (tmp_path / "lock.json").write_text("a line of somebody else")
    with lock.hold(tmp_path / "lock.json"):
        assert json.loads((tmp_path / "lock.json").read_text())["pid"] == os.getpid()


def test_two_jobs_on_one_run_folder(jobs: ForkServer, reference: Path, tmp_path: Path) -> None:
    command = ["run", f"{reference}/config.yaml", f"output={tmp_path}/run"]
    first = jobs.start(tmp_path, *command)
    first.until(lambda: "begin train" in first.phases())
    before = {path: path.read_bytes() for path in (tmp_path / "run").glob("*.*")}
    for arguments in (command, [*command, "train.epochs=1"]):
        second = jobs.run(tmp_path, *arguments)
        assert second.code == Exit.FAILED
        assert f"process {first.pid} on {socket.gethostname()} has used it since" in second.last_line()
    assert before == {path: path.read_bytes() for path in before}
    first.signal(signal.SIGKILL)
    first.wait()
    third = jobs.run(tmp_path, *command)
    assert third.code == Exit.DONE, third.text()
