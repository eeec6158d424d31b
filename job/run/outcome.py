"""Outcome: from the error that ended a command to its exit code and its last line.

An error keeps its own meaning, also after a signal: only an error that the signal caused counts as an interruption. A
full disk, a mistake in the config or a defect of ours does not become one because a signal came before it.

It knows kinds of errors. It does not know the stages, and it imports no library that has not been imported.
"""

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from job.errors import Exit, Interrupted, KickoffError
from job.run import durable
from job.run.out_of_memory import is_out_of_memory

CODES = "KICKOFF_EXIT_CODES"
"""Names, in the environment, the folder where each process under `job.launch` leaves its exit code."""
STOPPED = "stopped by a signal; finished work is kept, run the same command again"
_CLIENTS = {"huggingface_hub", "hf_xet", "httpx2", "httpcore2"}
_POOL = ("subprocesses has abruptly died", "process pool was terminated abruptly", "process pool is not usable")
_PEER = ("gloo", "NCCL", "Connection closed by peer", "Connection reset by peer", "TCPStore")


def of(error: BaseException, command: str, signalled: bool) -> tuple[Exit, str] | None:
    """Exit code and last line; None for a defect of ours, whose traceback has to be seen.

    Args:
        command: as the user called it, such as run or prepare.
        signalled: whether a signal has come.
    """
    chain = list(_chain(error))
    if isinstance(error, Interrupted):
        return Exit.INTERRUPTED, str(error)
    full = next((found for found in chain if durable.is_full(found)), None)
    if full is None and _by_signal(error, chain, signalled):
        return Exit.INTERRUPTED, STOPPED
    if isinstance(error, KickoffError):
        return error.exit_code, str(error)
    if full is not None:
        return Exit.FAILED, f"{_line(full)}; free or repair the disk and run the same command again"
    if any(is_out_of_memory(found) for found in chain):
        return Exit.MEMORY, f"out of memory: {_line(error)}; {_less(command)}"
    if _is_of_a_pool(error):
        killed = "a worker process was killed, most likely because memory ran out"
        return Exit.MEMORY, f"{killed} ({_line(error)}); {_less(command)}"
    if _is_of_the_hub(error):
        return Exit.FAILED, f"the Hub: {_line(error)}; run the same command again"
    if isinstance(error, OSError) and error.errno is not None:
        return Exit.FAILED, f"{_line(error)}; free or repair the disk and run the same command again"
    return None


def leave(code: int) -> None:
    """Tell the launcher, if there is one, how this process ends: by an empty file, which a full disk has room for."""
    folder = os.environ.get(CODES)
    if folder is not None:
        with suppress(OSError):
            (Path(folder) / f"{os.environ.get('RANK', '0')}.{int(code)}").touch()


def left_in(folder: Path) -> list[int]:
    """The exit codes that the processes left, by rank."""
    pairs = (path.name.split(".") for path in folder.iterdir())
    return [code for _, code in sorted((int(rank), int(code)) for rank, code in pairs)]


def is_of_a_peer(error: BaseException) -> bool:
    """Whether the connection to another process broke, which says nothing of what went wrong there."""
    several = int(os.environ.get("WORLD_SIZE", "1")) > 1
    return several and isinstance(error, RuntimeError) and any(words in str(error) for words in _PEER)


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """The error, and all that it was raised for; a library may have wrapped what we look for."""
    seen: set[int] = set()
    todo = [error]
    while todo:
        found = todo.pop()
        if found is not None and id(found) not in seen:
            seen.add(id(found))
            yield found
            todo += [found.__cause__, found.__context__]


def _by_signal(error: BaseException, chain: list[BaseException], signalled: bool) -> bool:
    """Whether a signal caused the error: it holds the KeyboardInterrupt, or the signal ended another process."""
    if any(isinstance(found, KeyboardInterrupt) for found in chain):
        return True
    # a signal to the process group ends the workers, and under torchrun the other processes, as well
    return signalled and (_is_of_a_pool(error) or is_of_a_peer(error))


def _is_of_a_pool(error: BaseException) -> bool:
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _POOL)


def _is_of_the_hub(error: BaseException) -> bool:
    """Whether the Hub's client raised it: one of its own errors, or a plain one that came from within it."""
    if isinstance(error, OSError) and error.filename is not None:
        return False  # a file of the cache
    packages = {type(found).__module__.partition(".")[0] for found in (error, error.__cause__) if found is not None}
    trace = error.__traceback__
    while trace is not None and isinstance(error, RuntimeError | OSError):
        packages.add(str(trace.tb_frame.f_globals.get("__name__")).partition(".")[0])
        trace = trace.tb_next
    return bool(packages & _CLIENTS)


def _less(command: str) -> str:
    if command == "prepare":
        return "take fewer rows, or a machine with more memory"
    return (
        "take a smaller model.base, lower model.max_length, train.batch_size or evaluate.batch_size, take fewer rows, "
        "or a machine with more memory"
    )


def _line(error: BaseException) -> str:
    return next(iter(str(error).splitlines()), "") or type(error).__name__
