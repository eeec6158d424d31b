"""Checks what the server's processes need from the machine, before any of them starts.

Without these checks a process would end with a traceback from inside a library, or all processes would wait for ever.
It knows the operating system. It does not know models or what the server does.
"""

import ctypes
import resource
import socket
import tempfile
from multiprocessing.sharedctypes import RawValue
from pathlib import Path

DESCRIPTORS = 64
"""Open files that the processes need before the first client connects, and for some connections."""
LONGEST_NAME = "listener-12345678"
"""The longest socket name that multiprocessing makes, in a folder named `PREFIX`...; our own names are shorter."""
PREFIX = "pymp-"
BYTES = 2**16


class Unfit(Exception):
    """The server cannot run on this machine. The text says what is missing and what to do."""


def check() -> None:
    """Check open files, the temporary folder and shared memory.

    Raises:
        Unfit: one of them is missing or too small.
    """
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < DESCRIPTORS:
        raise Unfit(f"open files: found a limit of {soft}, expected at least {DESCRIPTORS}; raise it with ulimit -n")
    try:
        _try_temporary_folder()
    except OSError as error:
        raise Unfit(f"temporary folder: {error}; set TMPDIR to a writable folder with a short path") from None
    try:
        RawValue(ctypes.c_bool)
    except OSError as error:
        raise Unfit(f"shared memory: {error}; give this machine or container a writable /dev/shm") from None


def _try_temporary_folder() -> None:
    with tempfile.TemporaryDirectory(prefix=PREFIX) as folder:
        path = Path(folder) / LONGEST_NAME
        with socket.socket(socket.AF_UNIX) as probe:
            try:
                probe.bind(str(path))
            except OSError as error:
                raise OSError(f"{error} for {path}") from None
        (Path(folder) / "file").write_bytes(bytes(BYTES))
