"""Signals to processes that do not let go."""

import signal
import subprocess
import sys
import time

import pytest
from checkout import ROOT

from job.errors import Exit

START = "import logging, sys, time; from job.run import interrupt; logging.basicConfig(stream=sys.stdout, level=20)\n"
START += "interrupt.PATIENCE_SECONDS = 0.5; interrupt.install(); print('ready', flush=True)\n"
SWALLOWS = START + "while True:\n    try: time.sleep(60)\n    except KeyboardInterrupt: pass"
DEFERS = START + "with interrupt.defer():\n    time.sleep(60)"


def started(code: str) -> subprocess.Popen[str]:
    process = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    time.sleep(0.1)
    return process


def test_an_operation_that_ignores_the_signal_is_abandoned() -> None:
    process = started(SWALLOWS)
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=20)
    assert process.returncode == Exit.INTERRUPTED
    assert "does not stop: ending the process; finished work is kept" in output


def test_a_step_that_takes_long_says_so_and_a_second_signal_ends_it() -> None:
    process = started(DEFERS)
    process.send_signal(signal.SIGTERM)
    assert process.stdout is not None
    assert "finishing the current step and the current write" in process.stdout.readline()
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=20) == Exit.INTERRUPTED


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_one_that_was_deferred_counts_at_the_end_of_the_block(number: int) -> None:
    code = START + "try:\n    with interrupt.defer(): time.sleep(0.5)\nexcept KeyboardInterrupt: print('counted')"
    process = started(code)
    process.send_signal(number)
    assert process.communicate(timeout=20)[0] == "counted\n"


def test_the_end_of_a_pool_of_workers_is_no_signal_to_the_run() -> None:
    """datasets works in one, and ends its workers with SIGTERM."""
    code = START + "from multiprocessing import get_context\n"
    code += "with get_context('fork').Pool(2) as pool: pool.apply_async(time.sleep, [60]); time.sleep(0.3)\n"
    code += "time.sleep(1.5); print('went on')"
    process = started(code)
    assert process.communicate(timeout=20)[0] == "went on\n"
    assert process.returncode == 0
