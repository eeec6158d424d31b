"""How the job talks to the Hub: the unchanged huggingface_hub client, with the time-outs it lacks by default.

It knows HTTP time-outs, how long to wait for a Hub that is down, and progress bars. It does not know what is
downloaded or published.
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
"""Time-outs without one good answer after which the Hub counts as down, whatever the client would still repeat."""


class HubDown(OSError):
    """The Hub has given no good answer for too long, or asks to wait for longer than that."""


def configure(timeout_seconds: float) -> None:
    """Give up on any answer that does not come within `timeout_seconds`; draw no bars without a terminal."""

    patience = _Patience(PATIENCE * timeout_seconds)

    def bound(request: httpx2.Request) -> None:
        # listing calls ask for no time-out at all and a HEAD for one of its own; both override the session's
        wanted = request.extensions["timeout"].items()
        request.extensions["timeout"] = {
            kind: timeout_seconds if seconds is None else min(seconds, timeout_seconds) for kind, seconds in wanted
        }

    def client() -> httpx2.Client:
        session = default_client_factory()
        session.timeout = httpx2.Timeout(timeout_seconds)
        session.event_hooks = {
            "request": [*session.event_hooks["request"], bound, patience.before],
            "response": [*session.event_hooks["response"], patience.after],
        }
        return session

    huggingface_hub.set_client_factory(client)
    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()
    if not sys.stderr.isatty():
        disable_progress_bars()
        datasets.disable_progress_bars()


def wait_asked(response: httpx2.Response) -> float:
    """Seconds that the Hub asks to wait before the next try; 0 if it does not say."""
    asked = response.headers.get("Retry-After", "")
    return float(asked) if asked.isdigit() else 0.0


class _Patience:
    """Since when the Hub has failed: from the first failure that is noticed to the next good answer, in any thread."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.failing_since: float | None = None
        self.mine = threading.local()

    def before(self, request: httpx2.Request) -> None:
        if getattr(self.mine, "unanswered", False):
            self._failed(f"{request.url.host} does not answer")
        self.mine.unanswered = True

    def after(self, response: httpx2.Response) -> None:
        self.mine.unanswered = False
        if response.status_code >= 500 or response.status_code in (408, 429):
            self._failed(f"{response.request.url.host} answers {response.status_code}", wait_asked(response))
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
