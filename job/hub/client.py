"""Client: configures the unchanged huggingface_hub client with the timeouts that it lacks by default.

It knows HTTP timeouts, how long to wait for a Hub that is down, and progress bars. It does not know what is downloaded
or published.
"""

import sys
import threading
import time

import datasets
import httpx2
import huggingface_hub
from huggingface_hub.utils import disable_progress_bars
from huggingface_hub.utils._http import default_client_factory  # the public API only replaces the whole client
from transformers.utils import logging as transformers_logging

PATIENCE = 4
"""Number of timeouts without a successful response after which the Hub counts as down, despite the client's retries."""


class HubDown(OSError):
    """The Hub has not answered successfully for too long, or asks for a longer wait than that."""


def configure(timeout_seconds: float) -> None:
    """Set the timeout of every request to the Hub, and draw no progress bars without a terminal.

    Args:
        timeout_seconds: Longest time for one response; the Hub counts as down after `PATIENCE` times as long.
    """
    patience = _Patience(PATIENCE * timeout_seconds)

    def limit(request: httpx2.Request) -> None:
        # the client's listing calls set no timeout, and its HEAD requests their own; both override the session's
        requested = request.extensions["timeout"].items()
        request.extensions["timeout"] = {
            kind: timeout_seconds if seconds is None else min(seconds, timeout_seconds) for kind, seconds in requested
        }

    def client() -> httpx2.Client:
        session = default_client_factory()
        session.timeout = httpx2.Timeout(timeout_seconds)
        session.event_hooks = {
            "request": [*session.event_hooks["request"], limit, patience.before],
            "response": [*session.event_hooks["response"], patience.after],
        }
        return session

    huggingface_hub.set_client_factory(client)
    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()
    if not sys.stderr.isatty():
        disable_progress_bars()
        datasets.disable_progress_bars()


def retry_after(response: httpx2.Response) -> float:
    """Return the seconds that the Hub asks to wait before the next attempt (Retry-After); 0 if it does not say."""
    seconds = response.headers.get("Retry-After", "")
    return float(seconds) if seconds.isdigit() else 0.0


class _Patience:
    """Measures for how long the Hub has failed: from the first failure to the next success, in any thread."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.failing_since: float | None = None
        self.of_thread = threading.local()

    def before(self, request: httpx2.Request) -> None:
        if getattr(self.of_thread, "unanswered", False):
            self._failed(f"{request.url.host} does not answer")
        self.of_thread.unanswered = True

    def after(self, response: httpx2.Response) -> None:
        self.of_thread.unanswered = False
        if response.status_code >= 500 or response.status_code in (408, 429):
            self._failed(f"{response.request.url.host} answers {response.status_code}", retry_after(response))
        else:
            self.failing_since = None

    def _failed(self, what: str, wait: float = 0.0) -> None:
        now = time.monotonic()
        self.failing_since = self.failing_since or now
        failing = now - self.failing_since
        if wait > self.seconds:
            raise HubDown(f"{what} and asks to wait for {wait:.0f} s")
        if failing > self.seconds:
            raise HubDown(f"{what}, for {failing:.0f} s now")
