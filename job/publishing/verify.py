"""Verify: what was published answers as the model in the run folder does.

It knows answers. It does not know how a model answers: the pipeline hands over a function for that.
"""

from collections.abc import Callable
from pathlib import Path

from job.errors import PublishError

Answer = Callable[[Path, list[str]], list[str]]
"""The answers of the model in a folder."""


class Samples:
    """Questions, and how the model in the run folder answers them."""

    def __init__(self, model: Path, questions: list[str], answer: Answer) -> None:
        self.questions, self.answer = questions, answer
        self.expected = answer(model, questions)

    def require_same(self, place: str, folder: Path) -> None:
        """Raise PublishError unless the model in `folder` gives the same answers."""
        found = self.answer(folder, self.questions)
        for wanted, given in zip(self.expected, found, strict=True):
            if wanted != given:
                raise PublishError(f"{place} answers {given!r}, expected {wanted!r} as here; it was not published")
