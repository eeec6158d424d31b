"""Library: the rows of a retriever as those see them who make prompts of them.

It knows texts and numbers of rows. It does not know how a row is found: a function does.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from job.data.prompt import Documents


@dataclass(frozen=True)
class Library:
    """The rows of a retriever, and how they are found."""

    questions: Sequence[str | None]
    """None where the row's question is not indexed."""
    answers: Sequence[str]
    answer_ids: Sequence[int]
    """Rows with equal answers share a number."""
    count: int
    """Rows in a prompt."""
    unknown_answer: str
    find: Callable[[Sequence[str], int], list[list[int]]]
    """(questions, how many) -> for each the best rows of distinct answers, the best first."""

    def documents(self, rows: Sequence[int], titled: Sequence[bool] | None = None) -> Documents:
        """Give rows by number as the chat template takes them.

        Args:
            rows: by number.
            titled: for each, whether it comes with its question; None: all do.
        """
        shown = [True] * len(rows) if titled is None else titled
        return [
            {"text": self.answers[row]}
            | ({} if (title := self.questions[row]) is None or not one else {"title": title})
            for row, one in zip(rows, shown, strict=True)
        ]
