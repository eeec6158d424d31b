"""How the job talks to the Hub: the unchanged huggingface_hub client, with time-outs that it lacks by default.

It knows HTTP behaviour and the token's place. It does not know what is downloaded or published.
"""

import os
import sys

import httpx2
import huggingface_hub
from huggingface_hub.utils import default_client_factory, disable_progress_bars  # type: ignore[attr-defined]
