"""The engine's input and output: token ids, never text."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Request:
    """What to generate. `temperature` 0 is greedy; `top_k` 0, `top_p` 1 and `min_p` 0 are off.

    No end-of-sequence token is chosen before `min_new_tokens`. With `ignore_eos`, it does not end the answer.
    With `logprobs`, each token comes with its log-probability.
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
    logprobs: bool = False

    @property
    def final_length(self) -> int:
        """The most tokens of prompt and answer together."""
        return len(self.prompt) + self.max_new_tokens


@dataclass(frozen=True)
class Token:
    """A generated token; `finish` is set on a request's last one ("stop": it is an end-of-sequence token).

    `began` is when the request's first forward pass began, by `time.monotonic()`. `logprob` is the log-probability that
    the model itself gives the token, before sampling settings; None if the request does not ask for it.
    """

    id: str
    token: int
    finish: Literal["stop", "length"] | None = None
    began: float = 0.0
    logprob: float | None = None


@dataclass(frozen=True)
class Failure:
    """A request that failed; other requests are not affected."""

    id: str
    reason: str


@dataclass(frozen=True)
class Limits:
    """The limits of a request.

    Attributes:
        context: the most tokens of prompt and answer together.
        vocabulary: token ids are below it.
        cache_tokens: of all running requests together.
        reason: why the context is not larger.
    """

    context: int
    vocabulary: int
    cache_tokens: int
    reason: str
