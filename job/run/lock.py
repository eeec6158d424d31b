"""Lock: allows one job at a time in a run folder.

It is the operating system's lock on an open file (flock), which ends with the process that holds it, however that
ends. The file stays and names the last holder. The module does not know what the folder holds.
"""

import errno
import fcntl
import json
import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from job.errors import KickoffError

log = logging.getLogger(__name__)


@contextmanager
def hold(file: Path) -> Iterator[None]:
    """Hold the lock within the block.

    Args:
        file: The lock file; it is created if it does not exist.

    Raises:
        KickoffError: Another process holds the lock; the text says which one, where, and since when.
    """
    with file.open("a+", encoding="utf-8") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise KickoffError(_refusal(file)) from None
        except OSError as error:
            if error.errno not in (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS):
                raise
            log.warning(f"{file} cannot be locked on this file system: make sure that no other job uses the folder")
        stream.truncate(0)
        json.dump({"pid": os.getpid(), "host": socket.gethostname(), "since": _now()}, stream)
        stream.flush()
        yield


def _refusal(file: Path) -> str:
    try:
        holder = json.loads(file.read_text(encoding="utf-8"))
        who = f"process {holder['pid']} on {holder['host']} has used it since {holder['since']}"
        stop = f"stop it (kill {holder['pid']} there)"
    except (OSError, ValueError, KeyError, TypeError):  # the holder has not written the file yet
        who, stop = "another process uses it", "stop it"
    return f"output: {file.parent} is in use: {who}; wait until it ends, {stop}, or choose another output"


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
