"""Errors: maps what the Hub's client raises to the job's errors, for models, data sets and publishing alike.

It knows the client's exceptions and the status codes behind them. It does not know what is downloaded or published.
"""

import json
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import datasets
import httpx2
from huggingface_hub import constants
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalTokenNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from job.errors import ConfigError, DataError, KickoffError, chain
from job.hub.client import HubDown, retry_after
from job.run.messages import one_line

ATTEMPTS = 3
FAILURES = (httpx2.HTTPError, OSError, RuntimeError, json.JSONDecodeError)
"""What the client raises if the Hub fails: RuntimeError if an upload was cut too often, and JSONDecodeError because it
parses a response before it checks the status."""
log = logging.getLogger(__name__)
Result = TypeVar("Result")


@dataclass(frozen=True)
class Wanted:
    """A repository that the config names, in the words of an error about it."""

    section: str
    """Section of the config, whose keys are in the messages: "model" or "dataset"."""
    key: str
    """The key that names the repository, such as "model.base"."""
    name: str
    revision: str | None
    unknown: str
    """What to say if there is no such repository, or HF_TOKEN may not read it."""
    what: str
    """What it is: "base model" or "data set"."""

    def error(self, text: str) -> KickoffError:
        """Return the error of this section that a retry cannot cure."""
        return ConfigError(text) if self.section == "model" else DataError(text)


def explain(error: BaseException, wanted: Wanted) -> KickoffError | None:
    """Map the Hub's refusal of a repository to the line that says what is wrong and what to do.

    Args:
        error: What the Hub's client, or a library that uses it, raised.
        wanted: The repository.

    Returns:
        The job's error if the repository is gated, has no such revision, does not exist or may not be read; else None.
    """
    links = list(chain(error))
    # datasets drops the cause of its own error about a gated data set
    if any(isinstance(link, GatedRepoError) for link in links) or "is a gated dataset" in str(error):
        path = wanted.name if wanted.section == "model" else f"datasets/{wanted.name}"
        return wanted.error(
            f"{wanted.key}: {wanted.name} is gated: ask for access at {constants.ENDPOINT}/{path} and set HF_TOKEN to "
            "a token of the account that has it"
        )
    if any(isinstance(link, RevisionNotFoundError) for link in links):
        return wanted.error(
            f"{wanted.section}.revision: {wanted.name} has no revision {wanted.revision!r}; expected a branch, a tag "
            "or a commit"
        )
    if isinstance(error, RepositoryNotFoundError | datasets.exceptions.DatasetNotFoundError | HFValidationError):
        return wanted.error(f"{wanted.key}: {wanted.unknown}")
    return None


def unavailable(wanted: Wanted, reason: str) -> KickoffError:
    """Return the error about a repository that the Hub did not deliver, for a reason that a retry may cure."""
    return KickoffError(
        f"the Hub did not deliver the {wanted.what} {wanted.name}: {reason}; run the same command again"
    )


def status(error: BaseException) -> int:
    """Return the HTTP status that the Hub answered with; 0 if it did not answer."""
    response = error.response if isinstance(error, HfHubHTTPError) else None
    return response.status_code if response is not None else 0


def retry(call: Callable[[], Result]) -> Result:
    """Call again if the Hub fails for a moment: the client does not retry commits, and any connection may be cut.

    Args:
        call: A call of the client that may be repeated.

    Returns:
        Its result.

    Raises:
        HubDown: The Hub has failed for too long.
        Exception: The last of `ATTEMPTS` failures, or one that a retry cannot cure.
    """
    for attempt in range(1, ATTEMPTS):
        try:
            return call()
        except (HubDown, LocalTokenNotFoundError):
            raise
        except FAILURES as error:
            code = status(error)
            if 0 < code < 500 and code not in (408, 429):
                raise
            asked = retry_after(error.response) if isinstance(error, HfHubHTTPError) and code else 0.0
            wait = max(2.0**attempt, asked)
            log.warning(f"publish: {one_line(error, most=None)}; again in {wait:.0f} s")
            time.sleep(wait)
    return call()
