"""Verify: checks that the published copy gives the same answers as the model in the run folder.

It compares answers. It does not know how a model answers: the pipeline passes a function for that.
"""

from collections.abc import Callable
from pathlib import Path

from job.errors import PublishError

Answer = Callable[[Path, list[str]], list[str]]
"""(folder of a model, questions) -> its answers."""


class Samples:
    """Questions, and the answers of the model in the run folder."""

    def __init__(self, model: Path, questions: list[str], answer: Answer) -> None:
        self.questions, self.answer = questions, answer
        self.expected = answer(model, questions)

    def require_same(self, target: str, folder: Path) -> None:
        """Require that a copy of the model gives the same answers.

        Args:
            target: Where it is published, for the error.
            folder: The copy.

        Raises:
            PublishError: An answer differs.
        """
        for expected, answer in zip(self.expected, self.answer(folder, self.questions), strict=True):
            if answer != expected:
                raise PublishError(
                    f"{target} answers {answer!r}, expected {expected!r}, as the local model; it was not published"
                )
