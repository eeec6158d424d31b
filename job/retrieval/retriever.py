"""Retriever: an encoder in a folder with its index; builds the index, and answers questions.

It knows the encoder and the files of the index. It does not know how either is measured or published.
"""

import logging
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import datasets
import numpy as np
import torch

from job.config.schema import RetrieverSection
from job.model.encoder import load_encoder
from job.retrieval import index as indexes
from job.retrieval.index import Entries, Index, Ranking, Settings, Vectors
from job.retrieval.neighbours import EXACT_ROWS
from job.retrieval.threshold import threshold
from job.run import out_of_memory
from job.run.machine import Machine

ASKED_AT_ONCE = 64
"""Questions whose scores are in memory at once: 256 MB for a million rows."""
ASKED_OF_MANY = 10_000
"""Training questions that set the threshold where there are more than `EXACT_ROWS` rows."""
BATCH = 64
"""Texts in a forward pass."""
log = logging.getLogger(__name__)


class Retriever:
    """An encoder, on the device of a machine."""

    def __init__(self, folder: Path, machine: Machine) -> None:
        """Load the encoder from a folder in published form."""
        with out_of_memory.convert_errors("while loading an encoder", "run the same command with more memory"):
            self.encoder = load_encoder(folder, machine.device).eval()
        self.machine = machine

    def encode_questions(self, texts: Sequence[str]) -> Vectors:
        """Encode questions as they are asked: [texts, width]."""
        return self._encode(texts, "query")

    def encode_answers(self, texts: Sequence[str]) -> Vectors:
        """Encode answers, or rows as one text: [texts, width]."""
        return self._encode(texts, "document")

    def _encode(self, texts: Sequence[str], prompt: str) -> Vectors:
        # by length, so that a batch holds little padding; in fp32, as the server does on a CPU
        order = sorted(range(len(texts)), key=lambda row: len(texts[row]))
        vectors = np.zeros((len(texts), int(self.encoder.get_embedding_dimension() or 0)), dtype=np.float32)
        work = partial(self._encode_batch, texts, prompt)
        for start in range(0, len(order), BATCH):
            rows = order[start : start + BATCH]
            vectors[rows] = out_of_memory.in_halves(rows, work, "encode", self.machine.free_cache)
        return vectors

    @torch.no_grad()
    def _encode_batch(self, texts: Sequence[str], prompt: str, rows: list[int]) -> list[Vectors]:
        encode = self.encoder.encode_query if prompt == "query" else self.encoder.encode_document
        found: Vectors = encode(
            [texts[row] for row in rows], batch_size=len(rows), show_progress_bar=False, normalize_embeddings=True
        )
        return list(found.astype(np.float32))

    def index(self, entries: Entries) -> Index:
        """Compute the vectors of all entries."""
        question_rows = entries.question_rows()
        questions = [str(entries.questions[row]) for row in question_rows]
        return Index(
            entries,
            self.encode_answers(entries.answers),
            self.encode_answers(entries.texts()),
            self.encode_questions(questions),
            np.array(question_rows, dtype=np.int64),
        )

    def best(
        self, index: Index, questions: Sequence[str], left_out: Sequence[int] | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Find the best answer to each question.

        Args:
            index: of this encoder.
            questions: as they are asked.
            left_out: for each question the id of an answer that counts as not there; None to leave out none.

        Returns:
            The rows of the best answers, and the confidences.
        """
        rows, confidences = [], []
        for ranking in self.rankings(index, questions, left_out):
            best = ranking.scores.argmax(axis=1)
            at = np.arange(len(best))
            rows.append(ranking.found[at, best])
            confidences.append(ranking.confidences[at, best])
        return np.concatenate(rows), np.concatenate(confidences)

    def rankings(
        self, index: Index, questions: Sequence[str], left_out: Sequence[int] | None = None
    ) -> Iterator[Ranking]:
        """Rank all answers for each question, `ASKED_AT_ONCE` questions at a time; arguments as of `best`."""
        for start in range(0, len(questions), ASKED_AT_ONCE):
            part = slice(start, start + ASKED_AT_ONCE)
            asked = self.encode_questions(questions[part])
            yield indexes.rank(index, asked, None if left_out is None else left_out[part])


def build(
    folder: Path, parts: datasets.DatasetDict, section: RetrieverSection, unknown: Sequence[str], machine: Machine
) -> float:
    """Add the index and retriever.json to the folder of an encoder.

    Args:
        folder: of the encoder.
        parts: "train" and "test", {"question", "answer", "where"}.
        section: the config's.
        unknown: questions that no row answers, to set the threshold. If there are none, each training question is
            asked as if its own answer were not there, which is harder: other rows are about the same things.
        machine: to compute with.

    Returns:
        The threshold.
    """
    retriever = Retriever(folder, machine)
    index = retriever.index(indexes.entries(parts))
    if section.threshold is not None:
        chosen = section.threshold
    elif unknown:
        chosen = threshold(retriever.best(index, unknown)[1].tolist(), section.max_wrong)
    else:
        asked = _asked_rows(len(parts["train"]), len(index.entries.answers))
        questions = parts["train"]["question"][:]
        known = [questions[row] for row in asked]
        own = index.entries.answer_ids[asked].tolist()
        few = len(set(index.entries.answer_ids.tolist())) < 2
        chosen = -1.0 if few else threshold(retriever.best(index, known, own)[1].tolist(), section.max_wrong)
    indexes.write(folder, index)
    indexes.write_settings(folder, Settings(chosen, section.unknown_answer))
    return chosen


def _asked_rows(train: int, rows: int) -> list[int]:
    """List the training rows that are asked to set the threshold: all, or evenly spread ones where they are too many.

    All of a million would be compared with all of a million.
    """
    return list(range(train)) if rows <= EXACT_ROWS else np.linspace(0, train - 1, ASKED_OF_MANY, dtype=int).tolist()


def answer(folder: Path, questions: Sequence[str], machine: Machine) -> list[str]:
    """Answer questions with the retriever in a folder, as its server does.

    Returns:
        For each the answer and its confidence to two digits; below the threshold `unknown_answer` in its place.
    """
    index, settings = indexes.read(folder), indexes.read_settings(folder)
    rows, confidences = Retriever(folder, machine).best(index, questions)
    return [
        f"{index.entries.answers[row] if confidence >= settings.threshold else settings.unknown_answer} "
        f"({confidence:.2f})"
        for row, confidence in zip(rows, confidences, strict=True)
    ]
