"""Systems: the servers that are compared, each started as in its own documentation, all with the same model.

It knows commands. It does not know the requests.
"""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bench.machine import best_dtype
from bench.serve import routes

TUNED = {"cb-num-blocks": 64, "cb-block-size": 32, "cb-max-batch-tokens": 256}
"""The fastest settings of transformers' continuous batching on this machine; its defaults are many times slower."""


@dataclass(frozen=True)
class System:
    """A server; `streams` says whether its documented form can stream."""

    name: str
    what: str
    command: Callable[[Path, int], list[str]]
    health: str
    route: routes.Route
    streams: bool = True


def _kickoff(model: Path, port: int) -> list[str]:
    return [sys.executable, "-m", "serve", str(model), "--port", str(port)]


def _litserve(model: Path, port: int) -> list[str]:
    return [sys.executable, "-m", "bench.serve.litserve_pipeline", str(model), str(port)]


def _transformers(model: Path, port: int) -> list[str]:
    command = Path(sys.executable).with_name("transformers")
    return [str(command), "serve", str(model), "--host", "127.0.0.1", "--port", str(port)]


def _tuned(model: Path, port: int) -> list[str]:
    options = [part for name, value in TUNED.items() for part in (f"--{name}", str(value))]
    return [*_transformers(model, port), "--continuous-batching", *options, "--dtype", best_dtype()]


SERVERS = [
    System("kickoff", "python -m serve, /predict", _kickoff, "/health/ready", routes.PREDICT),
    System("kickoff-chat", "python -m serve, /v1/chat/completions", _kickoff, "/health/ready", routes.CHAT),
    System("litserve", "LitServe with a pipeline in predict", _litserve, "/health", routes.PIPELINE, streams=False),
    System("transformers", "transformers serve as shipped", _transformers, "/health", routes.CHAT),
    System("transformers-cb", "transformers serve, continuous batching, tuned", _tuned, "/health", routes.CHAT),
]
KICKOFF = SERVERS[0]
PEERS = ("litserve", "transformers", "transformers-cb")
ENGINES = {"kickoff-engine": "kickoff's engine alone", "transformers-cb-engine": "transformers' engine alone, tuned"}
