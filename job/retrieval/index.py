"""Index: the answers of a retriever with their vectors, in the files that are published beside the encoder.

    answers.parquet     a row each: id, answer_id (rows with equal answers share it), answer, question (null where it is
                        not indexed), source (where the row stood)
    index.safetensors   "answers" and "rows" [rows, width], "questions" [questions, width], "question_rows" [questions]
    retriever.json      version, similarity, threshold, certain_score, unknown_answer

"rows" are the vectors of question and answer as one text. All vectors have length 1. A test row's question is not
indexed, or it would be found by itself; its answer is, since a user may ask for it. The module knows these files and
vectors. It does not know how an encoder is trained or measured.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from job.run import durable

ANSWERS, VECTORS, SETTINGS = "answers.parquet", "index.safetensors", "retriever.json"
FILES = (ANSWERS, VECTORS, SETTINGS)
VERSION = 1
CERTAIN = 0.99
"""Score from which a question is one of the rows' own, in its words, so that its answer is known whatever its
confidence. Other years or names make a cosine of 0.97 and less."""
Vectors = NDArray[np.float32]


@dataclass(frozen=True)
class Entries:
    """The rows of an index: each list is as long as there are rows."""

    answers: list[str]
    questions: list[str | None]
    sources: list[str]
    answer_ids: NDArray[np.int64]
    """Rows with equal answers share a number."""

    def texts(self) -> list[str]:
        """List what each row says: its question, if it is indexed, and its answer."""
        return [
            answer if question is None else f"{question} {answer}"
            for question, answer in zip(self.questions, self.answers, strict=True)
        ]

    def question_rows(self) -> list[int]:
        """List the rows whose question is indexed."""
        return [row for row, question in enumerate(self.questions) if question is not None]


def entries(parts: datasets.DatasetDict) -> Entries:
    """Make the rows of an index: all training rows, and the test rows whose answer no training row has.

    Args:
        parts: "train" and "test", {"question", "answer", "where"}.
    """
    train, test = (parts[name].select_columns(["question", "answer", "where"])[:] for name in ("train", "test"))
    known = set(train["answer"])
    more = [row for row, answer in enumerate(test["answer"]) if answer not in known]
    answers = [*train["answer"], *(test["answer"][row] for row in more)]
    numbers = {answer: number for number, answer in enumerate(dict.fromkeys(answers))}
    return Entries(
        answers,
        [*train["question"], *(None for _ in more)],
        [*train["where"], *(test["where"][row] for row in more)],
        np.array([numbers[answer] for answer in answers], dtype=np.int64),
    )


@dataclass(frozen=True)
class Index:
    """Entries with their vectors, all of length 1 and in fp32."""

    entries: Entries
    answers: Vectors
    """[rows, width]"""
    rows: Vectors
    """[rows, width]"""
    questions: Vectors
    """[questions, width]"""
    question_rows: NDArray[np.int64]
    """The row of each question: [questions]."""


@dataclass(frozen=True)
class Ranking:
    """What an index gives for some questions: each array is [questions, answers], the column being the answer's id."""

    scores: Vectors
    """The larger cosine of the question with an answer and with the questions that it belongs to: what ranks."""
    confidences: Vectors
    """The cosine of the question with the row that gave the score, question and answer as one text: what is compared
    with the threshold; the score itself where it is `CERTAIN`. A question's form alone, such as who won what and when,
    is near to many questions, so the score does not tell what is not known."""
    found: NDArray[np.int64]
    """The row that gave the score."""


def rank(index: Index, asked: Vectors, left_out: Sequence[int] | None = None) -> Ranking:
    """Compare questions with all answers of an index, exactly.

    Args:
        index: with its vectors.
        asked: the questions' vectors of length 1, [questions, width].
        left_out: for each question the id of an answer that counts as not there; None to leave out none.

    Returns:
        Scores, confidences and rows. Of rows with the same score the first counts.
    """
    by_row = asked @ index.answers.T
    by_row[:, index.question_rows] = np.maximum(by_row[:, index.question_rows], asked @ index.questions.T)
    order = np.argsort(index.entries.answer_ids, kind="stable")
    starts = np.flatnonzero(np.diff(index.entries.answer_ids[order], prepend=-1))
    by_row = by_row[:, order]
    scores = np.maximum.reduceat(by_row, starts, axis=1)
    is_best = by_row == np.repeat(scores, np.diff(starts, append=len(order)), axis=1)
    found = len(order) - np.maximum.reduceat(np.where(is_best, len(order) - order, 0), starts, axis=1)
    confidences = np.take_along_axis(asked @ index.rows.T, found, axis=1)
    confidences = np.where(scores >= CERTAIN, scores, confidences)
    if left_out is not None:
        scores[np.arange(len(asked)), left_out] = -np.inf
    return Ranking(scores, confidences, found)


def write(folder: Path, index: Index) -> None:
    """Write entries and vectors into the folder of an encoder; retriever.json is written by `write_settings`."""
    table = pa.table(
        {
            "id": pa.array(range(len(index.entries.answers)), pa.int64()),
            "answer_id": pa.array(index.entries.answer_ids, pa.int64()),
            "answer": pa.array(index.entries.answers, pa.string()),
            "question": pa.array(index.entries.questions, pa.string()),
            "source": pa.array(index.entries.sources, pa.string()),
        }
    )
    for name in (ANSWERS, VECTORS):
        (folder / name).unlink(missing_ok=True)
    pq.write_table(table, folder / ANSWERS)
    vectors: dict[str, NDArray[Any]] = {
        "answers": index.answers,
        "rows": index.rows,
        "questions": index.questions,
        "question_rows": index.question_rows,
    }
    save_file(vectors, folder / VECTORS)
    (folder / VECTORS).chmod(0o644)  # safetensors writes for its owner alone


def read(folder: Path) -> Index:
    """Read the index that `write` left in a folder."""
    table = pq.read_table(folder / ANSWERS).to_pydict()
    vectors = load_file(folder / VECTORS)
    answer_ids = np.array(table["answer_id"], dtype=np.int64)
    found = Entries(table["answer"], table["question"], table["source"], answer_ids)
    return Index(found, vectors["answers"], vectors["rows"], vectors["questions"], vectors["question_rows"])


@dataclass(frozen=True)
class Settings:
    """retriever.json."""

    threshold: float
    """Confidence below which the retriever does not know."""
    unknown_answer: str


def write_settings(folder: Path, settings: Settings) -> None:
    """Write retriever.json, atomically."""
    fields = {"version": VERSION, "similarity": "cosine", "certain_score": CERTAIN, **vars(settings)}
    durable.write(folder / SETTINGS, json.dumps(fields, indent=2, ensure_ascii=False) + "\n")


def read_settings(folder: Path) -> Settings:
    """Read the retriever.json that `write_settings` left."""
    fields = json.loads((folder / SETTINGS).read_text(encoding="utf-8"))
    return Settings(float(fields["threshold"]), str(fields["unknown_answer"]))
