"""The server's settings: limits, addresses, the device. Each is declared once, with its default, bounds and help text.

The prompt and the decoding are no settings: the published model brings them. `__main__` makes the command line from
the class below and reads the environment; nothing here does.
"""

from dataclasses import dataclass
from typing import Annotated, Literal

from typer import Argument, Option

LONGEST = 10**6
"""Seconds, some 11 days; what is longer does not fit into every clock here."""


@dataclass(frozen=True)
class Settings:
    """What the person who runs the server decides: the options of `python -m serve`, and the clients' key."""

    model: Annotated[str, Argument(metavar="MODEL", help="Folder, or owner/name.", envvar="KICKOFF_MODEL")]
    revision: Annotated[str | None, Option(help="Commit, tag or branch on the Hub.", envvar="KICKOFF_REVISION")] = None
    served_model_name: Annotated[
        str | None,
        Option(help="Name for clients; default: MODEL, which stays accepted too.", envvar="KICKOFF_SERVED_MODEL_NAME"),
    ] = None
    host: Annotated[
        str, Option(help="Name or address to listen on; 0.0.0.0 and :: listen on all.", envvar="KICKOFF_HOST")
    ] = "127.0.0.1"
    port: Annotated[int, Option(min=0, max=65535, help="Port; 0 picks a free one.", envvar="KICKOFF_PORT")] = 8000
    device: Annotated[
        Literal["auto", "cpu", "cuda"], Option(help="auto: a GPU if there is one.", envvar="KICKOFF_DEVICE")
    ] = "auto"
    dtype: Annotated[
        Literal["auto", "bfloat16", "float16", "float32"],
        Option(help="auto: bfloat16 where the hardware computes in it.", envvar="KICKOFF_DTYPE"),
    ] = "auto"
    workers: Annotated[
        int,
        Option(
            min=1,
            max=64,
            help="Engines on each device, which share its memory and a CPU's processors.",
            envvar="KICKOFF_WORKERS",
        ),
    ] = 1
    max_running: Annotated[
        int, Option(min=1, max=1024, help="Requests computed at once by an engine.", envvar="KICKOFF_MAX_RUNNING")
    ] = 32
    max_waiting: Annotated[
        int, Option(min=0, help="Requests that may wait; more get 429.", envvar="KICKOFF_MAX_WAITING")
    ] = 128
    max_body_bytes: Annotated[
        int, Option(min=1024, help="Largest body; more gets 413.", envvar="KICKOFF_MAX_BODY_BYTES")
    ] = 2**20
    timeout: Annotated[
        float,
        Option(
            min=0.1,
            max=LONGEST,
            help="Longest time for an answer, in seconds; then the partial answer is returned. A request may ask for "
            "less with the header X-Request-Timeout.",
            envvar="KICKOFF_TIMEOUT",
        ),
    ] = 60.0
    read_seconds: Annotated[
        float,
        Option(
            min=0.1,
            max=LONGEST,
            help="Longest time for a request to arrive, in seconds; then 408.",
            envvar="KICKOFF_READ_SECONDS",
        ),
    ] = 30.0
    keep_alive: Annotated[
        float,
        Option(
            min=1,
            max=LONGEST,
            help="Seconds that an idle connection stays open; keep it above the load balancer's, often 60.",
            envvar="KICKOFF_KEEP_ALIVE",
        ),
    ] = 75.0
    cors_origin: Annotated[
        list[str] | None,
        Option(
            help="Site whose pages may call the server, such as https://example.com; repeatable. * allows any site.",
            envvar="KICKOFF_CORS_ORIGIN",
        ),
    ] = None
    log_json: Annotated[bool, Option("--log-json", help="Log one JSON object per line.", envvar="KICKOFF_LOG_JSON")] = (
        False
    )
    cache_bytes: Annotated[
        int | None,
        Option(
            min=2**20,
            help="Memory for keys and values; default: half of what is free once the model is loaded.",
            envvar="KICKOFF_CACHE_BYTES",
        ),
    ] = None
    hang_seconds: Annotated[
        float,
        Option(
            min=1,
            max=LONGEST,
            help="Seconds of silence after which an engine is killed as hung.",
            envvar="KICKOFF_HANG_SECONDS",
        ),
    ] = 30.0
    drain_delay: Annotated[
        float,
        Option(
            min=0,
            max=LONGEST,
            help="On SIGTERM, seconds to report not ready before the port closes.",
            envvar="KICKOFF_DRAIN_DELAY",
        ),
    ] = 0.0
    drain_seconds: Annotated[
        float,
        Option(
            min=0,
            max=LONGEST,
            help="On SIGTERM, longest time for running requests to finish, in seconds.",
            envvar="KICKOFF_DRAIN_SECONDS",
        ),
    ] = 30.0
    api_key: str | None = None
    """Clients must send it. It comes from the environment alone: everybody on the machine can read a command line."""
