"""The engine's end of the link to the HTTP process; `link.py` has the other end and describes the messages.

It knows the socket. It does not know HTTP or models.
"""

import contextlib
import json
import queue
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

BEAT_SECONDS = 0.5
"""Between two messages of an idle engine."""


class LinkLost(Exception):
    """The HTTP process is gone. Any other OSError is the engine's own, and ends only this engine."""


class EngineLink:
    """The engine process' side: commands are read between steps, events are sent after each step."""

    def __init__(self, path: Path, gone: Callable[[], None]) -> None:
        """Connect to the HTTP process.

        Args:
            path: of the Unix socket.
            gone: called in a thread of its own as soon as the HTTP process has closed its end.

        Raises:
            LinkLost: there is no HTTP process.
        """
        self._gone = gone
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._commands: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        self._connect(path)
        threading.Thread(target=self._read, name="commands", daemon=True).start()

    def _connect(self, path: Path, patience_seconds: float = 30) -> None:
        """Connect, waiting for an HTTP process that has not yet started to listen."""
        give_up = time.monotonic() + patience_seconds
        while True:
            try:
                return self._socket.connect(str(path))
            except (FileNotFoundError, ConnectionRefusedError) as error:
                if time.monotonic() > give_up:
                    raise LinkLost(str(error)) from error
                time.sleep(0.02)

    def commands(self, wait: bool) -> list[dict[str, Any]]:
        """Return the commands since the last call; with `wait`, wait up to `BEAT_SECONDS` for the first."""
        commands = []
        with contextlib.suppress(queue.Empty):
            commands.append(self._commands.get(block=wait, timeout=BEAT_SECONDS if wait else None))
            while True:
                commands.append(self._commands.get_nowait())
        return commands

    def send(self, message: dict[str, Any]) -> None:
        """Send a message.

        Raises:
            LinkLost: the HTTP process is gone.
        """
        try:
            self._socket.sendall(json.dumps(message).encode() + b"\n")
        except ConnectionError as error:
            raise LinkLost(str(error)) from error

    def _read(self) -> None:
        with contextlib.suppress(OSError), self._socket.makefile("rb") as lines:
            for line in lines:
                self._commands.put(json.loads(line))
        self._gone()
