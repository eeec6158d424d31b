"""How the job talks to the Hub: the unchanged huggingface_hub client, with the time-outs it lacks by default.

It knows HTTP time-outs and progress bars. It does not know what is downloaded or published.
"""

import sys

import datasets
import httpx2
import huggingface_hub
from huggingface_hub.utils import disable_progress_bars
from huggingface_hub.utils._http import default_client_factory  # the public API only replaces the whole client
from transformers.utils import logging as transformers_logging


def configure(timeout_seconds: float) -> None:
    """Give up on any answer that does not come within `timeout_seconds`; draw no bars without a terminal."""

    limit = httpx2.Timeout(timeout_seconds)

    def bound(request: httpx2.Request) -> None:
        # listing calls ask for no time-out at all, which overrides the session's
        if all(value is None for value in request.extensions["timeout"].values()):
            request.extensions["timeout"] = limit.as_dict()

    def client() -> httpx2.Client:
        session = default_client_factory()
        session.timeout = limit
        session.event_hooks = {**session.event_hooks, "request": [*session.event_hooks["request"], bound]}
        return session

    huggingface_hub.set_client_factory(client)
    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()
    if not sys.stderr.isatty():
        disable_progress_bars()
        datasets.disable_progress_bars()
