"""Grounding: finds rows for questions with the retriever that a generator is grounded in.

It knows retrievers and the folder of a generator. It does not know prompts.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from job.data.library import Library
from job.data.prompt import Documents
from job.model.ground import FOLDER, SETTINGS
from job.retrieval import index as indexes
from job.retrieval.retriever import Retriever
from job.run.machine import Machine


@dataclass(frozen=True)
class Found:
    """What the retriever finds for some questions."""

    documents: list[Documents]
    confidences: list[float]
    """Of the best row of each."""
    known: list[bool]
    """Whether that reaches the threshold; a server answers `unknown_answer` where it does not."""
    unknown_answer: str


class Grounding:
    """The retriever in a generator's folder, loaded."""

    def __init__(self, folder: Path, machine: Machine) -> None:
        """Load the retriever of the generator in `folder`."""
        self.count = int(json.loads((folder / SETTINGS).read_text(encoding="utf-8"))["rows"])
        self.retriever = Retriever(folder / FOLDER, machine)
        self.index, self.settings = indexes.read(folder / FOLDER), indexes.read_settings(folder / FOLDER)

    def library(self) -> Library:
        """Give the rows, and how they are found, to those who make prompts of them."""
        entries = self.index.entries
        return Library(
            entries.questions,
            entries.answers,
            entries.answer_ids.tolist(),
            self.count,
            self.settings.unknown_answer,
            lambda questions, count: self._search(questions, count)[0],
        )

    def find(self, questions: Sequence[str]) -> Found:
        """Find the rows for questions, as the server does."""
        library = self.library()
        rows, confidences = self._search(questions, self.count)
        known = [confidence >= self.settings.threshold for confidence in confidences]
        documents = [library.documents(numbers) for numbers in rows]
        return Found(documents, confidences, known, self.settings.unknown_answer)

    def _search(self, questions: Sequence[str], count: int) -> tuple[list[list[int]], list[float]]:
        """Find the best rows of distinct answers for each question, and the confidence of the first."""
        rows: list[list[int]] = []
        confidences: list[float] = []
        for ranking in self.retriever.rankings(self.index, questions):
            best = np.argsort(-ranking.scores, axis=1, kind="stable")[:, :count]
            rows += np.take_along_axis(ranking.found, best, axis=1).tolist()
            confidences += np.take_along_axis(ranking.confidences, best[:, :1], axis=1)[:, 0].tolist()
        return rows, confidences


def load(folder: Path, machine: Machine) -> Grounding | None:
    """Load the retriever of the generator in a folder; None if it is not grounded."""
    return Grounding(folder, machine) if (folder / SETTINGS).exists() else None
