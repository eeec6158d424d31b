"""Measures the encoder at the start: the longest text that it can take here, and how many tokens a step may have.

An engine sends nothing during a step, and one that is silent for too long is killed as hung. A text of the longest
length is encoded before the first request, so that an encoder with fewer positions than it promises is refused.

It knows the encoder. It does not know requests.
"""

import logging
import time

from serve.retriever.encoder import Encoder

log = logging.getLogger(__name__)
STEP_TOKENS = {"cpu": 2048, "cuda": 32768}
"""Of a batch with its padding. More are no faster on two cores, and a step of so many takes about half a second."""
FIRST = 256
"""Tokens of the first text that is timed."""
SHARE = 10
"""A step may take a tenth of --hang-seconds: on a busy machine it takes far longer."""
GROWTH = 4
"""Twice the length takes at most four times as long."""


def context(encoder: Encoder, hang_seconds: float) -> int:
    """Find the most tokens of a text.

    Returns:
        The encoder's limit, or fewer on a machine on which such a text would take a tenth of `hang_seconds`.

    Raises:
        ValueError: the encoder fails before its limit.
    """
    length = min(FIRST, encoder.limit)
    _time(encoder, length)  # not timed: libraries choose their kernels now
    seconds = _time(encoder, length)
    while length < encoder.limit and seconds * GROWTH <= hang_seconds / SHARE:
        length = min(2 * length, encoder.limit)
        seconds = _time(encoder, length)
    if length < encoder.limit:
        log.warning(
            "engine: texts of up to %d tokens are taken, although the encoder promises %d: twice as many would take "
            "too long here; raise --hang-seconds", length, encoder.limit,
        )  # fmt: skip
    return length


def step_tokens(encoder: Encoder, context: int, hang_seconds: float) -> int:
    """Find the most tokens of a batch, padding included: at least `context`."""
    most = STEP_TOKENS.get(encoder.device.type, STEP_TOKENS["cpu"])
    length = min(64, context)
    seconds = _time(encoder, length)
    affordable = int(length * hang_seconds / SHARE / max(seconds, 1e-6))
    return max(context, min(most, affordable))


def _time(encoder: Encoder, length: int) -> float:
    """Measure the seconds of a text of about `length` tokens; sentence-transformers cuts it at the encoder's limit."""
    began = time.monotonic()
    try:
        encoder.encode(["a " * length], "query")
    except IndexError as error:
        raise ValueError(f"its encoder fails for a text of {length} tokens ({error}); lower max_seq_length") from error
    return time.monotonic() - began
