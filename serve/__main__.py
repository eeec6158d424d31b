"""The command line: `python -m serve MODEL`. Every option can also be set in the environment.

It finds the model, refuses what cannot be served with one line, and starts the server. Nothing heavy is imported
before it is needed, so that `--help` and a mistake are answered at once.
"""

import logging
import os
import signal
import sys
import unicodedata
from enum import StrEnum
from typing import Annotated, NoReturn

import typer

from serve import logs
from serve.http import cors
from serve.settings import Settings

KEY = "KICKOFF_API_KEY"
app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)


LONGEST = 10**6
"""Seconds, some 11 days; what is longer does not fit into every clock here."""


class Device(StrEnum):
    auto = "auto"
    cpu = "cpu"
    cuda = "cuda"


class Dtype(StrEnum):
    auto = "auto"
    bfloat16 = "bfloat16"
    float16 = "float16"
    float32 = "float32"


@app.command(help=__doc__.splitlines()[0])
def main(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="Folder, or owner/name.", envvar="KICKOFF_MODEL")],
    revision: Annotated[
        str | None, typer.Option(help="Commit, tag or branch on the Hub.", envvar="KICKOFF_REVISION")
    ] = None,
    served_model_name: Annotated[
        str | None,
        typer.Option(help="Name for clients; default: MODEL, which goes on being accepted.",
                     envvar="KICKOFF_SERVED_MODEL_NAME"),
    ] = None,
    host: Annotated[
        str, typer.Option(help="Name or address to listen on; 0.0.0.0 and :: are all.", envvar="KICKOFF_HOST")
    ] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="Port; 0 is any that is free.", envvar="KICKOFF_PORT")
    ] = 8000,
    device: Annotated[
        Device, typer.Option(help="auto: a GPU if there is one.", envvar="KICKOFF_DEVICE")
    ] = Device.auto,
    dtype: Annotated[
        Dtype, typer.Option(help="auto: bfloat16 where the hardware computes in it.", envvar="KICKOFF_DTYPE")
    ] = Dtype.auto,
    workers: Annotated[
        int,
        typer.Option(min=1, max=64, help="Engines on each device, which share its memory and a CPU's processors.",
                     envvar="KICKOFF_WORKERS"),
    ] = 1,
    max_running: Annotated[
        int, typer.Option(min=1, max=1024, help="Requests computed at once by an engine.", envvar="KICKOFF_MAX_RUNNING")
    ] = 32,
    max_waiting: Annotated[
        int, typer.Option(min=0, help="Requests that may wait; more get 429.", envvar="KICKOFF_MAX_WAITING")
    ] = 128,
    max_body_bytes: Annotated[
        int, typer.Option(min=1024, help="Largest body; more gets 413.", envvar="KICKOFF_MAX_BODY_BYTES")
    ] = 2**20,
    timeout: Annotated[
        float,
        typer.Option(
            min=0.1, max=LONGEST,
            help="Seconds for an answer; then what is there. A request may ask for less with the header "
            "X-Request-Timeout.", envvar="KICKOFF_TIMEOUT",
        ),
    ] = 60.0,
    read_seconds: Annotated[
        float,
        typer.Option(min=0.1, max=LONGEST, help="Seconds for a request to arrive; then 408.",
                     envvar="KICKOFF_READ_SECONDS"),
    ] = 30.0,
    keep_alive: Annotated[
        float,
        typer.Option(
            min=1, max=LONGEST,
            help="Seconds that an idle connection stays open; keep it above the load balancer's, often 60.",
            envvar="KICKOFF_KEEP_ALIVE",
        ),
    ] = 75.0,
    cors_origin: Annotated[
        list[str] | None,
        typer.Option(
            help="Site whose pages may ask from a browser, as https://example.com; may be given again. * is any.",
            envvar="KICKOFF_CORS_ORIGIN",
        ),
    ] = None,
    log_json: Annotated[
        bool, typer.Option("--log-json", help="Log one JSON object a line.", envvar="KICKOFF_LOG_JSON")
    ] = False,
    cache_bytes: Annotated[
        int | None,
        typer.Option(
            min=2**20, help="Memory for keys and values; default: half of what is free once the model is loaded.",
            envvar="KICKOFF_CACHE_BYTES",
        ),
    ] = None,
    hang_seconds: Annotated[
        float,
        typer.Option(min=1, max=LONGEST, help="Silence after which the engine counts as hung.",
                     envvar="KICKOFF_HANG_SECONDS"),
    ] = 30.0,
    drain_delay: Annotated[
        float,
        typer.Option(min=0, max=LONGEST, help="On SIGTERM, seconds not ready but still open.",
                     envvar="KICKOFF_DRAIN_DELAY"),
    ] = 0.0,
    drain_seconds: Annotated[
        float,
        typer.Option(min=0, max=LONGEST, help="On SIGTERM, seconds for running requests.",
                     envvar="KICKOFF_DRAIN_SECONDS"),
    ] = 30.0,
) -> None:  # fmt: skip
    """Serve MODEL over HTTP; the key that clients must send comes from the environment alone (KICKOFF_API_KEY)."""
    logs.configure(log_json)
    for noisy in ("httpx", "httpx2", "huggingface_hub", "filelock"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    if served_model_name == "":
        _refuse("--served-model-name: found an empty name; leave it out to serve under the model's own")
    settings = Settings(
        model=model, revision=revision, served_model_name=served_model_name,
        host=host, port=port, device=device.value, dtype=dtype.value, workers=workers,
        max_running=max_running, max_waiting=max_waiting, max_body_bytes=max_body_bytes, timeout=timeout,
        read_seconds=read_seconds, keep_alive=keep_alive, cors_origins=_origins(cors_origin or []), log_json=log_json,
        cache_bytes=cache_bytes, hang_seconds=hang_seconds, drain_delay=drain_delay, drain_seconds=drain_seconds,
        api_key=_key(),
    )  # fmt: skip
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _stop)
    from serve import machine
    from serve.repository import Refused, find

    try:
        machine.check()
        published = find(model, revision)
    except (Refused, machine.Unfit) as error:
        _refuse(str(error))
    from serve.server import Server, listen

    try:
        listener = listen(settings.host, settings.port)
    except (OSError, UnicodeError) as error:
        _refuse(f"--host {settings.host} --port {settings.port}: {error}; choose an address of this machine, free port")
    host_, port_ = listener.getsockname()[:2]
    logging.info(
        "serving %s@%s on http://%s:%d",
        published.name,
        published.revision,
        f"[{host_}]" if ":" in host_ else host_,
        port_,
    )
    sys.exit(Server(settings, published, listener).serve())


def _key() -> str | None:
    """The key that clients must send, if a header can hold it as it is. It stays out of the processes started here."""
    key = os.environ.pop(KEY, None)
    if key is None:
        return None
    for place, inside in (("end", key[len(key.rstrip()) :]), ("beginning", key[: len(key) - len(key.lstrip())])):
        if inside:
            kind = "line end" if {"\n", "\r"} & set(inside) else "blank"
            _refuse(f"{KEY}: found a {kind} at its {place}, which no client can send; write it without one (printf %s)")
    wrong = next((at for at, one in enumerate(key, 1) if ord(one) > 0xFF or unicodedata.category(one) == "Cc"), None)
    if wrong is not None:
        _refuse(f"{KEY}: found a character that no header can hold, number {wrong} of {len(key)}; use others")
    if len(key) < 8:
        _refuse(f"{KEY}: found {len(key)} characters, expected at least 8; leave it unset to serve without a key")
    return key


def _origins(given: list[str]) -> tuple[str, ...]:
    try:
        return tuple(cors.origin(text) for text in given)
    except ValueError as error:
        _refuse(f"--cors-origin: {error}")


def _stop(number: int, *_: object) -> None:
    """While the model is fetched: at once, without waiting for the threads that fetch it."""
    print("stopped before the server started", file=sys.stderr, flush=True)
    os._exit(128 + number)


def _refuse(reason: str) -> NoReturn:
    print(f"error: {reason}", file=sys.stderr)
    sys.exit(2)


if __name__ == "__main__":
    app()
