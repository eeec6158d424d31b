"""What the server's processes need of the machine, tried before any of them starts, so that its lack is one line.

Where it is lacking, some process in the middle of a library would end with a traceback, or all of them would wait.
It knows the system. It does not know models, or what the server does.
"""

import ctypes
import resource
import socket
import tempfile
from multiprocessing.sharedctypes import RawValue
from pathlib import Path

DESCRIPTORS = 64
"""Open files that the processes need before anybody has connected, and some connections."""
LONGEST = "listener-12345678"
"""A socket's name as multiprocessing makes them, in a folder of a name like `LIKE`; ours are shorter."""
LIKE = "pymp-"
BYTES = 2**16


class Unfit(Exception):
    """The server cannot run here. The text says what is lacking and what to do."""


def check() -> None:
    """
    Raises:
        Unfit: something is lacking.
    """
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < DESCRIPTORS:
        raise Unfit(f"open files: found a limit of {soft}, expected at least {DESCRIPTORS}; raise it with ulimit -n")
    try:
        _try_the_folder()
    except OSError as error:
        raise Unfit(f"temporary folder: {error}; set TMPDIR to a short folder that can be written") from None
    try:
        RawValue(ctypes.c_bool)
    except OSError as error:
        raise Unfit(f"shared memory: {error}; give this machine or container a /dev/shm that can be written") from None


def _try_the_folder() -> None:
    with tempfile.TemporaryDirectory(prefix=LIKE) as folder:
        path = Path(folder) / LONGEST
        with socket.socket(socket.AF_UNIX) as probe:
            try:
                probe.bind(str(path))
            except OSError as error:
                raise OSError(f"{error} for {path}") from None
        (Path(folder) / "file").write_bytes(bytes(BYTES))
