"""A process that has imported what the job imports, and forks a child for each run: `python -m job` without the wait.

Importing torch and transformers takes seconds, the tiny run of these tests less than two. Each child is a process of
its own, which goes through `job.__main__` as the command line does and ends by a real signal or with a real exit
code. No computing happens before a fork, so there is no pool of threads that a child could miss.

It reads one JSON line for each run, {"id", "program", "arguments", "environment", "cwd", "output", "errors", "notes",
and one of the ways to go wrong below}, and answers {"id", "pid"} at once and {"id", "code"} at the end, as subprocess
counts it. The program is job, or train: tests/support/train_process.py.
"""

import importlib
import json
import logging
import os
import resource
import select
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import datasets.config
import matplotlib.figure  # noqa: F401 - what follows is imported for the children
import torch
import train_process
import transformers.models.auto.modeling_auto
import transformers.models.gpt2.modeling_gpt2
import transformers.models.gpt2.tokenization_gpt2  # noqa: F401
from huggingface_hub import constants
from torch.utils import tensorboard  # noqa: F401

from job import __main__ as command_line
from job.run.folder import RunFolder
from job.training.loop import Training

FILES = {"open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "shutil.rmtree", "shutil.copyfile"}
"""Audit events of Python that touch a file."""


def main() -> None:
    running: dict[int, int] = {}
    buffer = b""
    while True:
        ready, _, _ = select.select([0], [], [], 0.002 if running else 1.0)
        if ready:
            chunk = os.read(0, 65536)
            if not chunk:
                return
            *lines, buffer = (buffer + chunk).split(b"\n")
            for line in lines:
                order = json.loads(line)
                pid = os.fork()
                if pid == 0:
                    child(order)
                running[pid] = order["id"]
                answer(id=order["id"], pid=pid)
        while running and (ended := os.waitpid(-1, os.WNOHANG))[0]:
            answer(id=running.pop(ended[0]), code=os.waitstatus_to_exitcode(ended[1]))


def answer(**values: int) -> None:
    os.write(1, json.dumps(values).encode() + b"\n")


def child(order: dict[str, Any]) -> None:
    os.environ.clear()
    os.environ.update(order["environment"])
    os.chdir(order["cwd"])
    output = append_to(order["output"])
    os.dup2(output, 1)
    os.dup2(append_to(order["errors"]) if order["errors"] else output, 2)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    torch.set_num_threads(1)
    for read_once in (constants, datasets.config):  # the environment, when they were imported
        importlib.reload(read_once)
    code = 1
    try:
        code = train(order) if order["program"] == "train" else job(order)
    except SystemExit as end:
        code = int(end.code or 0)
    except BaseException:
        sys.excepthook(*sys.exc_info())
    sys.stdout.flush()
    os._exit(code)


def append_to(path: str) -> int:
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)


def train(order: dict[str, Any]) -> int:
    logging.basicConfig(level=logging.INFO, stream=sys.stdout)
    return train_process.main(Path(order["arguments"][0]))


def job(order: dict[str, Any]) -> int:
    note_phases(order["notes"])
    if order.get("dies_at_file"):
        die_at_file(order["dies_at_file"], order["within"])
    if order.get("memory_while_training"):
        bound_memory(order["memory_while_training"])
    command_line.app(order["arguments"], prog_name="python -m job")
    return 0


def note_phases(path: str) -> None:
    """Write down which phases begin and end, so that a test can aim at one of them."""
    unchanged = RunFolder.phase

    def note(line: str) -> None:
        with Path(path).open("a") as stream:
            stream.write(line + "\n")

    @contextmanager
    def noting(folder: Any, name: str, *rest: Any) -> Iterator[None]:
        note(f"begin {name}")
        with unchanged(folder, name, *rest):
            yield
        note(f"end {name}")

    RunFolder.phase = noting  # type: ignore[method-assign]


def die_at_file(number: int, within: str) -> None:
    """kill -9 just before the n-th time that Python touches a file in a folder, or as its own count if n < 0."""
    seen = 0

    def count(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal seen
        if event not in FILES or not path_of(event, arguments).startswith(within):
            return
        if event == "open" and not touches(arguments):
            return
        seen += 1
        if seen == number:
            os.kill(os.getpid(), signal.SIGKILL)
        if number < 0:
            os.write(2, f"touches {seen}: {event} {arguments[0]}\n".encode())

    sys.addaudithook(count)


def path_of(event: str, arguments: tuple[Any, ...]) -> str:
    """The path that an event is about; shutil.rmtree names files relative to an open folder."""
    folder = arguments[1] if event in ("os.remove", "os.rmdir") else -1
    name = str(arguments[0])
    return str(Path(f"/proc/self/fd/{folder}").readlink() / name) if folder >= 0 else name


def touches(arguments: tuple[Any, ...]) -> bool:
    """Whether a file is opened to be written."""
    flags = arguments[2]
    return isinstance(flags, int) and bool(flags & (os.O_WRONLY | os.O_RDWR))


def bound_memory(more: int) -> None:
    """From the first step of training on the process may have that many bytes more than it has."""
    unchanged = Training.loop

    def bounded(self: Any, *arguments: Any) -> None:
        now = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (now + more, now + more))
        unchanged(self, *arguments)

    Training.loop = bounded  # type: ignore[method-assign]


if __name__ == "__main__":
    main()
