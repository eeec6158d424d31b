"""Pairs: the encoded questions and answers of a retriever's rows, and which rows have the same answer.

It knows ids by row number. It does not know models.
"""

import datasets
import numpy as np

from job.training.batches import Rows


class Pairs:
    """Encoded questions and answers, by number, and which rows have the same answer."""

    def __init__(self, rows: datasets.Dataset) -> None:
        """Take over `rows`: {"input_ids", "labels", "answer"}, as `data.pairs` encodes them."""
        self._rows = Rows(rows, 0)
        self.lengths = self._rows.lengths
        self.trained = [1] * len(self.lengths)
        parts = [self._rows.split(row) for row in range(len(self.lengths))]
        self.questions = [question for question, _ in parts]
        self.answers = [answer for _, answer in parts]
        names = rows["answer"][:]
        numbers = {name: number for number, name in enumerate(dict.fromkeys(names))}
        self.answer_ids = np.array([numbers[name] for name in names])
        self._same: dict[int, list[int]] = {}
        for row, number in enumerate(self.answer_ids.tolist()):
            self._same.setdefault(number, []).append(row)

    def __len__(self) -> int:
        """Count the rows."""
        return len(self.lengths)

    def fingerprint(self) -> str:
        """Hash the rows and their order."""
        return self._rows.fingerprint()

    def with_same_answer(self, row: int) -> list[int]:
        """List the rows with the answer of `row`, itself among them."""
        return self._same[int(self.answer_ids[row])]
