"""Warms up the engine before the first request: libraries choose their kernels, and a pass is timed.

An engine sends nothing during a pass, and one that is silent for too long is killed as hung. So on a slow machine the
prefill chunks are made smaller. It knows the engine's public methods only.
"""

import logging
import time

from serve.engine.engine import MIN_CHUNK, Engine
from serve.engine.request import Request

log = logging.getLogger(__name__)
SHARE = 10
"""A chunk may take a tenth of --hang-seconds: after a long text, or on a busy machine, it takes far longer."""


def warm_up(engine: Engine, hang_seconds: float) -> None:
    """Run a few requests of different lengths, and set the chunk size by the time of a small one.

    Args:
        engine: not yet used.
        hang_seconds: --hang-seconds.

    Raises:
        ValueError: the model fails, or its answers would never end.
    """
    if engine.eos and min(engine.eos) >= engine.limits.vocabulary:
        raise ValueError(
            f"found the end-of-sequence token {min(engine.eos)}, expected one below "
            f"{engine.limits.vocabulary}, the size of its vocabulary; set eos_token_id in generation_config.json"
        )
    for index in range(min(4, engine.max_rows)):
        engine.submit(Request(f"warm-up {index}", [0] * min(index + 4, engine.limits.context - 3), 3))
    _finish(engine)
    count = max(1, min(MIN_CHUNK, engine.limits.context - 1))
    _time(engine, count)  # not timed: kernels are chosen now
    _pace(engine, _time(engine, count), hang_seconds)
    engine.steps = 0
    log.info("engine: context of %d tokens (%s)", engine.limits.context, engine.limits.reason)


def _time(engine: Engine, count: int) -> float:
    """Measure the seconds of a pass over a prompt of `count` tokens."""
    began = time.monotonic()
    engine.submit(Request("timed", [0] * count, 1))
    _finish(engine)
    return time.monotonic() - began


def _pace(engine: Engine, seconds: float, hang_seconds: float) -> None:
    """Halve the chunk size until a chunk takes at most a tenth of `hang_seconds`; the smallest takes `seconds`."""
    most, smallest = hang_seconds / SHARE, min(MIN_CHUNK, engine.prefill_tokens)
    while engine.prefill_tokens > smallest and seconds * engine.prefill_tokens / smallest > most:
        engine.prefill_tokens = max(smallest, engine.prefill_tokens // 2)
    if seconds > most:
        log.warning(
            "engine: %d tokens of a prompt take %.1f s here, and an engine that is silent for %.0f s is killed "
            "as hung; raise --hang-seconds", smallest, seconds, hang_seconds,
        )  # fmt: skip
    log.debug("engine: prompts are computed in chunks of %d tokens", engine.prefill_tokens)


def _finish(engine: Engine) -> None:
    while not engine.idle:
        engine.step()
    if failures := engine.failures():
        raise ValueError(failures[0].reason)
