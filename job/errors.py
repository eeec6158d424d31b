"""Errors: the ways a run can end, each with its exit code.

Every error that a user can cause or fix is one of these; its text says what was expected, what was found and what to
do. Any other exception is a bug and ends with Python's own exit code 1.
"""

from collections.abc import Iterator
from enum import IntEnum


class Exit(IntEnum):
    """Exit codes of `python -m job`; a Kubernetes podFailurePolicy relies on them."""

    DONE = 0
    FAILED = 1
    CONFIG = 2
    DATA = 3
    GATE = 4
    PUBLISH = 5
    MEMORY = 6
    INTERRUPTED = 75


class KickoffError(Exception):
    """The run ended early for a reason the user can act on; a retry may help, as when the Hub is down."""

    exit_code = Exit.FAILED


class ConfigError(KickoffError):
    """The config, or what it names (a base model, a repository), cannot work; a retry does not help."""

    exit_code = Exit.CONFIG


class DataError(KickoffError):
    """The data set cannot be read, or nothing of it is left to train on."""

    exit_code = Exit.DATA


class GateRefused(KickoffError):
    """The tuned model is not good enough to be published; it is kept in the run folder."""

    exit_code = Exit.GATE


class PublishError(KickoffError):
    """Publishing failed; the model is kept and `publish` can be run again."""

    exit_code = Exit.PUBLISH


class Diverged(KickoffError):
    """The loss exploded or is not finite; a retry with the same config would do the same."""

    exit_code = Exit.CONFIG


class OutOfMemory(KickoffError):
    """A single row does not fit into memory."""

    exit_code = Exit.MEMORY


class Interrupted(KickoffError):
    """A signal stopped the run; finished work is kept, and the same command resumes from there."""

    exit_code = Exit.INTERRUPTED


def chain(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error and all its causes and contexts, each once: a library may have wrapped the one that matters."""
    seen: set[int] = set()
    pending = [error]
    while pending:
        link = pending.pop()
        if link is not None and id(link) not in seen:
            seen.add(id(link))
            yield link
            pending += [link.__cause__, link.__context__]
