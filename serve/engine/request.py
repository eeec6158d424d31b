"""What goes into the engine and what comes out of it: ids, never text."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Request:
    """What to generate. `temperature` 0 is greedy; `top_k` 0, `top_p` 1 and `min_p` 0 are off.

    No end-of-text token is chosen before `min_new_tokens`. With `ignore_eos` it is a token like any other.
    """

    id: str
    prompt: list[int]
    max_new_tokens: int
    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    seed: int | None = None
    min_p: float = 0.0
    min_new_tokens: int = 0
    ignore_eos: bool = False


@dataclass(frozen=True)
class Token:
    """One generated token; `finish` is set on a request's last one ("stop": it is an end-of-text token).

    `began` is when the request's first forward pass began, by `time.monotonic()`.
    """

    id: str
    token: int
    finish: Literal["stop", "length"] | None = None
    began: float = 0.0


@dataclass(frozen=True)
class Failure:
    """A request that could not be answered to its end; the others go on."""

    id: str
    reason: str


@dataclass(frozen=True)
class Limits:
    """What a request must keep to: `context` tokens for prompt and answer together; ids below `vocabulary`.

    `reason` says where the context is from.
    """

    context: int
    vocabulary: int
    cache_tokens: int
    reason: str
