"""Memory: a batch that does not fit goes through in halves; a model that does not fit is said so.

It knows rows by number, not what is done with them.
"""

import logging
from collections.abc import Callable
from typing import TypeVar

from job.errors import OutOfMemory
from job.run.out_of_memory import is_out_of_memory

Result = TypeVar("Result")
log = logging.getLogger(__name__)


def halving(rows: list[int], work: Callable[[list[int]], list[Result]]) -> list[Result]:
    """The results of a batch; where memory does not suffice, of its halves."""
    try:
        return work(rows)
    except Exception as error:
        if not is_out_of_memory(error):
            raise
    # outside of the handler, which would keep the failed batch's tensors alive
    if len(rows) == 1:
        raise OutOfMemory(
            "out of memory with a single test row; take a smaller model.base, lower model.max_length, or run on a "
            "machine with more memory"
        )
    middle = len(rows) // 2
    log.warning(f"evaluate: out of memory with {len(rows)} rows, going on with {middle}")
    return halving(rows[:middle], work) + halving(rows[middle:], work)


def loading(load: Callable[[], Result]) -> Result:
    """What `load` gives, a model; OutOfMemory where it does not fit."""
    try:
        return load()
    except Exception as error:
        if not is_out_of_memory(error):
            raise
    raise OutOfMemory(
        "out of memory while loading a model to measure it, which needs 4 bytes a parameter. What is trained is kept: "
        "run the same command again on a machine with more memory, or take a smaller model.base and another output"
    )
