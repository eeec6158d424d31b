"""What the person who runs the server decides: limits, addresses, the device. Nothing of the prompt or the decoding,
which the published model brings.

It does not know where the values come from; `__main__` reads the command line and the environment.
"""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Settings:
    """Seconds, bytes and counts as the names say; see `python -m serve --help`."""

    model: str
    revision: str | None = None
    served_model_name: str | None = None
    host: str = "127.0.0.1"
    port: int = 8000
    device: Literal["auto", "cpu", "cuda"] = "auto"
    dtype: Literal["auto", "bfloat16", "float16", "float32"] = "auto"
    workers: int = 1
    max_running: int = 32
    max_waiting: int = 128
    max_body_bytes: int = 2**20
    timeout: float = 60.0
    read_seconds: float = 30.0
    keep_alive: float = 75.0
    cache_bytes: int | None = None
    hang_seconds: float = 30.0
    drain_delay: float = 0.0
    drain_seconds: float = 30.0
    cors_origins: tuple[str, ...] = ()
    log_json: bool = False
    api_key: str | None = None
