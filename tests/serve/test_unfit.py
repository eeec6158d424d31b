"""Machines on which the server cannot run: one line that says what to do, code 2, and no traceback."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from checkout import ROOT
from served import Served, free_port

READ_ONLY = "mount --bind {0} {0} && mount -o remount,bind,ro {0} && "


def refused(model: Path, *before: str, **environment: str) -> str:
    """What the server says that is started by the command `before`, in a folder that cannot be written."""
    command = [*before, sys.executable, "-m", "serve", str(model), "--port", str(free_port())]
    done = subprocess.run(
        command, cwd="/proc", env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        capture_output=True, text=True, timeout=100,
    )  # fmt: skip
    said = done.stdout + done.stderr
    assert "Traceback" not in said and "Aborted" not in said, said
    assert done.returncode == 2, said
    return said


def test_no_temporary_folder_that_can_be_written(published: Path) -> None:
    mounts = "".join(READ_ONLY.format(folder) for folder in ("/tmp", "/var/tmp"))
    (line,) = refused(published, "unshare", "--mount", "sh", "-c", f'{mounts} exec "$@"', "sh").splitlines()
    assert line.startswith("error: temporary folder: ")
    assert line.endswith("; set TMPDIR to a writable folder with a short path")


def test_a_temporary_folder_that_is_full(published: Path, tmp_path: Path) -> None:
    script = f'mount -t tmpfs -o size=16k none {tmp_path} && exec "$@"'
    (line,) = refused(published, "unshare", "--mount", "sh", "-c", script, "sh", TMPDIR=str(tmp_path)).splitlines()
    assert "No space left on device" in line and "set TMPDIR" in line


def test_a_temporary_folder_with_too_long_a_name(published: Path, tmp_path: Path) -> None:
    folder = tmp_path / ("x" * 80)
    folder.mkdir()
    (line,) = refused(published, TMPDIR=str(folder)).splitlines()
    assert "AF_UNIX path too long" in line and "; set TMPDIR to a writable folder with a short path" in line


@pytest.mark.parametrize(("length", "fits"), [(75, True), (76, False)])
def test_a_name_is_too_long_from_where_a_process_could_not_start(length: int, fits: bool, published: Path) -> None:
    folder = Path("/tmp") / ("x" * (length - len("/tmp/")))
    folder.mkdir(exist_ok=True)
    try:
        if fits:
            with Served(published, TMPDIR=str(folder)) as server:
                assert server.stop() == 0
        else:
            assert "AF_UNIX path too long" in refused(published, TMPDIR=str(folder))
    finally:
        folder.rmdir()


@pytest.mark.parametrize("mount", ["mount -t tmpfs -o ro none /dev/shm", "mount -t tmpfs none /dev"])
def test_no_shared_memory(mount: str, published: Path) -> None:
    script = f'{mount} && exec "$@"'
    (line,) = refused(published, "unshare", "--mount", "sh", "-c", script, "sh").splitlines()
    assert line.startswith("error: shared memory: ")
    assert line.endswith("; give this machine or container a writable /dev/shm")


def test_too_few_open_files(published: Path) -> None:
    (line,) = refused(published, "prlimit", "--nofile=48").splitlines()
    assert line == "error: open files: found a limit of 48, expected at least 64; raise it with ulimit -n"


@pytest.mark.parametrize("name", ["fork", "spawn"])
def test_the_system_refuses_a_process(name: str, published: Path, tmp_path: Path) -> None:
    """As it does where the container's limit is reached: the first process is LitServe's own, the next an engine."""
    (tmp_path / "sitecustomize.py").write_text(
        "import errno, multiprocessing.util, os\n"
        "def refuse(*_):\n"
        "    raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))\n"
        + ("os.fork = refuse\n" if name == "fork" else "multiprocessing.util.spawnv_passfds = refuse\n")
    )
    said = refused(published, PYTHONPATH=f"{ROOT}:{tmp_path}")
    assert said.count("its processes could not be started (") == 1
    assert "Resource temporarily unavailable" in said


def test_a_port_that_somebody_else_takes_at_the_same_moment(published: Path) -> None:
    """Two may bind one port as long as nobody listens."""
    server = Served(published)
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind(("127.0.0.1", server.port))
        server.start()
        while "serving" not in server.output():
            assert server.process.poll() is None
        other.listen()
        assert server.process.wait(30) == 2
    assert "Address already in use; choose a free port with --port" in server.output()
    assert "Traceback" not in server.output() and "exiting" not in server.output()
