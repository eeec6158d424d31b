"""The command line: `python -m serve MODEL`. Every option can also be set in the environment.

It finds the model, refuses what cannot be served with one line, and starts the server. Nothing heavy is imported
before it is needed, so that `--help` and a mistake are answered at once.
"""

import inspect
import logging
import os
import signal
import socket
import sys
import unicodedata
from collections.abc import Callable
from dataclasses import replace
from typing import Any, NoReturn

import typer

from serve import logs
from serve.http import cors
from serve.settings import Settings

KEY = "KICKOFF_API_KEY"
app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)


def with_options(command: Callable[[Settings], None]) -> Callable[..., None]:
    """Give a command every setting as an option.

    Args:
        command: what to run with the settings; their `api_key` is not set.

    Returns:
        A function with the signature that typer makes the options from: the fields of `Settings` without the key.
    """

    def run(**options: Any) -> None:
        command(Settings(**options))

    fields = inspect.signature(Settings).parameters.values()
    run.__signature__ = inspect.Signature([field for field in fields if field.name != "api_key"])  # type: ignore[attr-defined]
    return run


@app.command(help=__doc__.splitlines()[0])
@with_options
def main(settings: Settings) -> None:
    """Serve `settings.model` over HTTP; exit with 2 and one line if that cannot be done."""
    logs.configure(settings.log_json)
    for noisy in ("httpx", "httpx2", "huggingface_hub", "filelock"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    settings = _check(settings)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _stop)
    from serve import machine
    from serve.repository import Refused, find

    try:
        machine.check()
        published = find(settings.model, settings.revision)
    except (Refused, machine.Unfit) as error:
        _refuse(str(error))
    from serve.server import Server

    listener = _listener(settings)
    host, port = listener.getsockname()[:2]
    host = f"[{host}]" if ":" in host else host
    logging.info("serving %s@%s on http://%s:%d", published.name, published.revision, host, port)
    sys.exit(Server(settings, published, listener).run())


def _check(settings: Settings) -> Settings:
    """Check what typer cannot, and return the settings with the key."""
    if settings.served_model_name == "":
        _refuse("--served-model-name: found an empty name; leave it out to serve under the model's own")
    try:
        for text in settings.cors_origin or []:
            cors.origin(text)
    except ValueError as error:
        _refuse(f"--cors-origin: {error}")
    return replace(settings, api_key=_key())


def _key() -> str | None:
    """The key that clients must send, if a header can hold it as it is.

    It is taken out of the environment, so that no process started here inherits it.
    """
    key = os.environ.pop(KEY, None)
    if key is None:
        return None
    for end, blanks in (("end", key[len(key.rstrip()) :]), ("beginning", key[: len(key) - len(key.lstrip())])):
        if blanks:
            kind = "line end" if {"\n", "\r"} & set(blanks) else "blank"
            _refuse(f"{KEY}: found a {kind} at its {end}, which no client can send; write it without one (printf %s)")
    wrong = next((at for at, one in enumerate(key, 1) if ord(one) > 0xFF or unicodedata.category(one) == "Cc"), None)
    if wrong is not None:
        _refuse(
            f"{KEY}: found a character that no header can contain, number {wrong} of {len(key)}; use other characters"
        )
    if len(key) < 8:
        _refuse(f"{KEY}: found {len(key)} characters, expected at least 8; leave it unset to serve without a key")
    return key


def _listener(settings: Settings) -> socket.socket:
    from serve.server import listen

    try:
        return listen(settings.host, settings.port)
    except (OSError, UnicodeError) as error:
        _refuse(
            f"--host {settings.host} --port {settings.port}: {error}; choose an address of this machine and a free port"
        )


def _stop(number: int, *_: object) -> None:
    """End the process while the model is fetched, without waiting for the threads that fetch it."""
    print("stopped before the server started", file=sys.stderr, flush=True)
    os._exit(128 + number)


def _refuse(reason: str) -> NoReturn:
    print(f"error: {reason}", file=sys.stderr)
    sys.exit(2)


if __name__ == "__main__":
    app()
