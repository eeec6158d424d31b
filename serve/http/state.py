"""State: what the routes of the HTTP process share, and whether they can answer now.

It knows the engines, the tokenizer and the settings. It does not know routes, nor who fills it; see `app.py`.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from serve.confidence import Confidence
from serve.http.admission import Admission
from serve.http.tokens import Tokens
from serve.link import Engines
from serve.repository import Decoding, Published
from serve.retriever.files import Threshold
from serve.settings import Settings
from serve.shared import Shared

if TYPE_CHECKING:
    from serve.http.text import Text  # brings transformers, which the main process does not need


@dataclass
class AppState:
    """What the routes share.

    A generator has `defaults`, `text` and perhaps `confidence`, a retriever `threshold` and `tokens`, a grounded
    generator all of them and `rows`. `text` and `tokens` are None until the tokenizer is loaded.
    """

    settings: Settings
    published: Published
    engines: Engines
    shared: Shared
    admission: Admission
    defaults: Decoding | None = None
    text: "Text | None" = None
    threshold: Threshold | None = None
    tokens: Tokens | None = None
    confidence: Confidence | None = None
    rows: int = 0
    """Retrieved rows in a prompt; 0 for a model that is not grounded."""

    @property
    def name(self) -> str:
        """The model's name for clients."""
        return self.settings.served_model_name or self.published.name

    def not_ready_reason(self) -> str | None:
        """Why requests should go elsewhere; None if they are welcome. Those that arrive are answered if possible."""
        return "the server is stopping" if self.shared.stopping.is_set() else self.unavailable_reason()

    def unavailable_reason(self) -> str | None:
        """Why no request can be answered now; None if the server is ready."""
        if not self.engines.ready and self.engines.were_ready:
            return "the engine died and is restarting"
        needed = [self.text] * (self.defaults is not None) + [self.tokens] * (self.threshold is not None)
        if not self.engines.ready or any(one is None for one in needed):
            return "the model is being loaded"
        if self.engines.beat_age > self.settings.hang_seconds:
            return f"the engine has not reported for {self.engines.beat_age:.0f} s"
        return None

    @property
    def loaded_text(self) -> "Text":
        """The tokenizer; to be asked for only where `unavailable_reason` is None."""
        assert self.text is not None  # noqa: S101 - for mypy
        return self.text

    @property
    def decoding(self) -> Decoding:
        """A generator's published decoding defaults."""
        assert self.defaults is not None  # noqa: S101 - for mypy
        return self.defaults

    @property
    def loaded_tokens(self) -> Tokens:
        """A retriever's token counts; to be asked for only where `unavailable_reason` is None."""
        assert self.tokens is not None  # noqa: S101 - for mypy
        return self.tokens

    @property
    def known_from(self) -> Threshold:
        """A retriever's threshold."""
        assert self.threshold is not None  # noqa: S101 - for mypy
        return self.threshold

    @property
    def context(self) -> int:
        """The most tokens of prompt and answer together; to be asked for only where `unavailable_reason` is None."""
        context = self.engines.context
        assert context is not None  # noqa: S101 - for mypy
        return context
