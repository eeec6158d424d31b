"""From errors to exit codes, in real processes: what a signal caused is 75, everything else keeps its own code."""

import os
import subprocess
import sys
import textwrap

import pytest
from checkout import ROOT

from job.errors import ConfigError, Exit, PublishError
from job.run import outcome

START = """
import os, signal, sys, time
from job import __main__ as main
from job.errors import *
from job.run import interrupt
def signal_comes():
    with interrupt.defer():  # only noted, as while training
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.05)
def stage(config):
{body}
main._command = lambda command: stage
main.load = lambda path, overrides: None
main.app(["{command}", "config.yaml"])
"""


def ended(body: str, command: str = "run") -> tuple[int, str, str]:
    """Exit code, last line and all output of a command whose work is `body`."""
    code = START.format(body=textwrap.indent(textwrap.dedent(body).strip(), "    "), command=command)
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=110)
    lines = done.stdout.splitlines() or [""]
    return done.returncode, lines[-1], done.stdout + done.stderr


FULL_DISK = "os.write(os.open('/dev/full', os.O_WRONLY), b'x')"
NOTED = """
try:
    signal_comes()
except KeyboardInterrupt:
    pass
"""
CASES: dict[str, tuple[str, int, str]] = {
    "a signal alone": ("os.kill(os.getpid(), signal.SIGTERM); time.sleep(9)", Exit.INTERRUPTED, "stopped by a signal"),
    "the terminal is gone": ("os.kill(os.getpid(), signal.SIGHUP); time.sleep(9)", Exit.INTERRUPTED, "run the same"),
    "a checkpoint was made": (NOTED + "raise Interrupted('stopped at step 3')", Exit.INTERRUPTED, "step 3"),
    "a library wraps it": (
        """
        try:
            signal_comes()
        except KeyboardInterrupt as error:
            raise RuntimeError('generation failed') from error
        """,
        Exit.INTERRUPTED,
        "stopped by a signal",
    ),
    "ours hides what wraps it": (
        """
        try:
            try:
                signal_comes()
            except KeyboardInterrupt:
                raise OSError('cut')
        except OSError:
            raise PublishError('failed') from None
        """,
        Exit.INTERRUPTED,
        "stopped by a signal",
    ),
    "a full disk after it": (NOTED + FULL_DISK, Exit.FAILED, "No space left on device"),
    "a full disk while it is handled": (
        f"""
        try:
            signal_comes()
        finally:
            {FULL_DISK}
        """,
        Exit.FAILED,
        "No space left on device; free or repair the disk",
    ),
    "a mistake after it": (NOTED + "raise ConfigError('output: no')", Exit.CONFIG, "output: no"),
    "a gate after it": (NOTED + "raise GateRefused('not published')", Exit.GATE, "not published"),
    "a push that fails after it": (NOTED + "raise PublishError('failed')", Exit.PUBLISH, "failed"),
    "a worker after it": (
        NOTED + "raise RuntimeError('One of the subprocesses has abruptly died during map operation.')",
        Exit.INTERRUPTED,
        "stopped by a signal",
    ),
    "a reset after it": (NOTED + "raise ConnectionResetError(104, 'reset')", Exit.FAILED, "reset"),
    "memory after it": (NOTED + "raise MemoryError", Exit.MEMORY, "out of memory"),
    "memory of Python": ("bytearray(10**18)", Exit.MEMORY, "out of memory: MemoryError; use a smaller model.base"),
    "memory of NumPy": ("import numpy; numpy.ones(10**15)", Exit.MEMORY, "Unable to allocate"),
    "memory of torch": ("import torch; torch.ones(10**15)", Exit.MEMORY, "can't allocate memory"),
    "memory of the system": ("raise OSError(12, os.strerror(12))", Exit.MEMORY, "Cannot allocate memory"),
    "a library wraps memory": (
        """
        try:
            bytearray(10**18)
        except MemoryError as error:
            raise ValueError('cannot load') from error
        """,
        Exit.MEMORY,
        "out of memory: cannot load",
    ),
    "a worker that is killed": (
        """
        import datasets
        rows = datasets.Dataset.from_dict({"n": list(range(100))})
        rows.map(lambda row: os.kill(os.getpid(), signal.SIGKILL), num_proc=2, load_from_cache_file=False)
        """,
        Exit.MEMORY,
        "a worker process was killed, most likely because memory ran out",
    ),
    "a worker of a pool that is killed": (
        """
        from concurrent.futures import ProcessPoolExecutor
        with ProcessPoolExecutor(1) as pool:
            pool.submit(os._exit, 9).result()
        """,
        Exit.MEMORY,
        "a worker process was killed",
    ),
    "an error of the Hub": (
        """
        from huggingface_hub import HfApi
        HfApi(endpoint="http://127.0.0.1:9").model_info("a/b")
        """,
        Exit.FAILED,
        "run the same command again",
    ),
    "a plain error from within the Hub's client": (
        """
        import httpx2
        client = httpx2.Client()
        client.close()
        client.get("http://127.0.0.1:9")
        """,
        Exit.FAILED,
        "the Hub: Cannot send a request, as the client has been closed.; run the same command again",
    ),
    "a file that may not be read": ("raise PermissionError(13, 'denied', 'cache')", Exit.FAILED, "repair the disk"),
}


@pytest.mark.parametrize(("body", "code", "says"), CASES.values(), ids=CASES)
def test_each_error_has_its_own_code(body: str, code: int, says: str) -> None:
    found, last, output = ended(body)
    assert found == code, output
    assert says in last
    assert "Traceback" not in output


def test_fewer_rows_help_where_there_is_no_model() -> None:
    assert ended("raise MemoryError", "prepare")[1].endswith("use fewer rows, or a machine with more memory")


def test_a_defect_after_a_signal_shows_its_traceback() -> None:
    code, _, output = ended(NOTED + "{}['no such key']")
    assert code == Exit.FAILED
    assert "KeyError: 'no such key'" in output


def test_an_ignored_sighup_stays_ignored() -> None:
    code, last, output = ended("os.kill(os.getpid(), signal.SIGHUP); time.sleep(0.1); return 'done'")
    assert (code, last) == (Exit.INTERRUPTED, f"error (interrupted, exit 75): {outcome.STOPPED}"), output
    body = "os.kill(os.getpid(), signal.SIGHUP); time.sleep(0.1); return 'done'"
    script = "import signal; signal.signal(signal.SIGHUP, signal.SIG_IGN)\n" + START.format(
        body=textwrap.indent(body, "    "), command="run"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout.splitlines()[-1]) == (Exit.DONE, "done"), done.stderr


def test_a_reader_that_is_gone_does_not_change_the_code() -> None:
    read, write = os.pipe()
    os.close(read)
    code = START.format(body="    raise ConfigError('no')", command="run")
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, stdout=write, stderr=subprocess.PIPE, timeout=60)
    os.close(write)
    assert done.returncode == Exit.CONFIG, done.stderr


def test_other_processes_that_a_signal_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    lost = RuntimeError("[../gloo/transport/tcp/pair.cc:534] Connection closed by peer [10.0.0.2]:4096")
    assert outcome.classify(lost, "run", signalled=True) is None, "there are no others"
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert outcome.classify(lost, "run", signalled=True) == (Exit.INTERRUPTED, outcome.STOPPED)
    assert outcome.classify(lost, "run", signalled=False) is None
    mistake = ConfigError("gloo is no device")
    assert outcome.classify(mistake, "run", signalled=True) == (Exit.CONFIG, "gloo is no device")
    assert outcome.classify(PublishError("NCCL"), "run", signalled=True) == (Exit.PUBLISH, "NCCL")
