"""Before the first request: libraries choose their kernels, a model that fails does so, and a pass is timed.

An engine says nothing while a pass lasts, and one that says nothing for too long is ended as hung. So on a slow machine
prompts are computed in smaller pieces. It knows the engine from outside.
"""

import logging
import time

from serve.engine.engine import MIN_CHUNK, Engine
from serve.engine.request import Request

log = logging.getLogger(__name__)
SHARE = 10
"""A piece of a prompt may take this part of the silence after which an engine counts as hung: behind a long text, and
on a busy machine, the same piece takes several times as long."""


def warm_up(engine: Engine, hang_seconds: float) -> None:
    """A few requests of unlike lengths, and the size of a prompt's pieces by the time that a small one takes.

    Raises:
        ValueError: the model fails, or its answers would never end.
    """
    if engine.eos and min(engine.eos) >= engine.limits.vocabulary:
        raise ValueError(
            f"found the end-of-text token {min(engine.eos)}, expected one below {engine.limits.vocabulary}, the ids "
            "that it knows; set eos_token_id in generation_config.json"
        )
    for index in range(min(4, engine.max_rows)):
        engine.submit(Request(f"warm-up {index}", [0] * min(index + 4, engine.limits.context - 3), 3))
    _finish(engine)
    count = max(1, min(MIN_CHUNK, engine.limits.context - 1))
    _time(engine, count)  # kernels are chosen now, which takes time as well
    _pace(engine, _time(engine, count), hang_seconds)
    engine.steps = 0
    log.info("engine: context of %d tokens (%s)", engine.limits.context, engine.limits.reason)


def _time(engine: Engine, count: int) -> float:
    """Seconds for a pass over a prompt of `count` tokens."""
    began = time.monotonic()
    engine.submit(Request("timed", [0] * count, 1))
    _finish(engine)
    return time.monotonic() - began


def _pace(engine: Engine, seconds: float, hang_seconds: float) -> None:
    """Halve the pieces until one takes little of `hang_seconds`, if the smallest takes `seconds`."""
    most, smallest = hang_seconds / SHARE, min(MIN_CHUNK, engine.prefill_tokens)
    while engine.prefill_tokens > smallest and seconds * engine.prefill_tokens / smallest > most:
        engine.prefill_tokens = max(smallest, engine.prefill_tokens // 2)
    if seconds > most:
        log.warning(
            "engine: %d tokens of a prompt take %.1f s here, and after %.0f s of silence it is ended as hung; "
            "raise --hang-seconds", smallest, seconds, hang_seconds,
        )  # fmt: skip
    log.debug("engine: prompts are computed in pieces of %d tokens", engine.prefill_tokens)


def _finish(engine: Engine) -> None:
    while not engine.idle:
        engine.step()
    if failures := engine.failures():
        raise ValueError(failures[0].reason)
