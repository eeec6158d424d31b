"""Outcome: maps the error that ended a command to its exit code and its last line.

An error keeps its own meaning after a signal: only an error that the signal caused counts as an interruption. A full
disk, a mistake in the config or a bug does not become one because a signal came first.

The module knows kinds of errors. It does not know the stages, and it imports no heavy library.
"""

import os
from contextlib import suppress
from pathlib import Path

from job.errors import Exit, Interrupted, KickoffError, chain
from job.run import durable
from job.run.messages import first_line
from job.run.out_of_memory import is_out_of_memory

CODES = "KICKOFF_EXIT_CODES"
"""Environment variable with the folder in which each process under `job.launch` records its exit code."""
STOPPED = "stopped by a signal; finished work is kept, run the same command again"
_CLIENTS = {"huggingface_hub", "hf_xet", "httpx2", "httpcore2"}
_POOL = ("subprocesses has abruptly died", "process pool was terminated abruptly", "process pool is not usable")
_PEER = ("gloo", "NCCL", "Connection closed by peer", "Connection reset by peer", "TCPStore")


def classify(error: BaseException, command: str, signalled: bool) -> tuple[Exit, str] | None:
    """Determine exit code and last line of a command that failed.

    Args:
        error: The error that ended it.
        command: The command's name, such as run or prepare.
        signalled: Whether a signal has come.

    Returns:
        The exit code and the last line; None for a bug, whose traceback must be seen.
    """
    links = list(chain(error))
    if isinstance(error, Interrupted):
        return Exit.INTERRUPTED, str(error)
    disk_full = next((link for link in links if durable.is_disk_full(link)), None)
    if disk_full is None and _is_by_signal(error, links, signalled):
        return Exit.INTERRUPTED, STOPPED
    if isinstance(error, KickoffError):
        return error.exit_code, str(error)
    if disk_full is not None:
        return Exit.FAILED, f"{first_line(disk_full)}; free or repair the disk and run the same command again"
    if any(is_out_of_memory(link) for link in links):
        return Exit.MEMORY, f"out of memory: {first_line(error)}; {_reduce_memory(command)}"
    if _is_dead_worker(error):
        killed = "a worker process was killed, most likely because memory ran out"
        return Exit.MEMORY, f"{killed} ({first_line(error)}); {_reduce_memory(command)}"
    if _is_hub_error(error):
        return Exit.FAILED, f"the Hub: {first_line(error)}; run the same command again"
    if isinstance(error, OSError) and error.errno is not None:
        return Exit.FAILED, f"{first_line(error)}; free or repair the disk and run the same command again"
    return None


def record_code(code: int) -> None:
    """Record this process's exit code for the launcher, if there is one, as an empty file: a full disk allows that."""
    folder = os.environ.get(CODES)
    if folder is not None:
        with suppress(OSError):
            (Path(folder) / f"{os.environ.get('RANK', '0')}.{int(code)}").touch()


def read_codes(folder: Path) -> list[int]:
    """Return the exit codes that the processes recorded in a folder, by rank."""
    pairs = (path.name.split(".") for path in folder.iterdir())
    return [code for _, code in sorted((int(rank), int(code)) for rank, code in pairs)]


def is_lost_peer(error: BaseException) -> bool:
    """Return whether the connection to another process broke, which does not say what went wrong there."""
    several = int(os.environ.get("WORLD_SIZE", "1")) > 1
    return several and isinstance(error, RuntimeError) and any(words in str(error) for words in _PEER)


def _is_by_signal(error: BaseException, links: list[BaseException], signalled: bool) -> bool:
    """Return whether a signal caused the error: its chain has KeyboardInterrupt, or another process was ended."""
    if any(isinstance(link, KeyboardInterrupt) for link in links):
        return True
    # a signal to the process group ends the workers, and under torchrun the other processes, as well
    return signalled and (_is_dead_worker(error) or is_lost_peer(error))


def _is_dead_worker(error: BaseException) -> bool:
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _POOL)


def _is_hub_error(error: BaseException) -> bool:
    """Return whether the Hub's client raised it: one of its own errors, or a built-in one from within its code."""
    if isinstance(error, OSError) and error.filename is not None:
        return False  # a file of the cache
    packages = {type(link).__module__.partition(".")[0] for link in (error, error.__cause__) if link is not None}
    trace = error.__traceback__
    while trace is not None and isinstance(error, RuntimeError | OSError):
        packages.add(str(trace.tb_frame.f_globals.get("__name__")).partition(".")[0])
        trace = trace.tb_next
    return bool(packages & _CLIENTS)


def _reduce_memory(command: str) -> str:
    if command == "prepare":
        return "use fewer rows, or a machine with more memory"
    return (
        "use a smaller model.base, lower model.max_length, train.batch_size or evaluate.batch_size, use fewer rows, "
        "or a machine with more memory"
    )
