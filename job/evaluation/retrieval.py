"""Retrieval: measures a retriever in a folder on the test rows, and BM25 beside it as the floor.

It knows rankings of answers. It does not know whether the encoder is the tuned one or the base.
"""

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import bm25s
import datasets
import numpy as np
from numpy.typing import NDArray

from job.evaluation import intervals
from job.evaluation.answers import add_metrics, score
from job.retrieval import index as indexes
from job.retrieval.index import Entries
from job.retrieval.retriever import Retriever
from job.run.facts import Answer, ModelMetrics
from job.run.machine import Machine

DEPTH = 10
"""Of mrr_at_10: an answer that stands further down counts as not found."""


def evaluate(
    folder: Path, test: datasets.Dataset, unknown: Sequence[str], machine: Machine
) -> tuple[ModelMetrics, list[Answer]]:
    """Measure a retriever: where it ranks the expected answer, and whether it knows when it does not know.

    Args:
        folder: A retriever in published form.
        test: Columns question, answer and where; at least one row.
        unknown: Questions that no row answers; may be empty.
        machine: To compute with.

    Returns:
        The metrics, and the best answers in the order of the rows.

    Raises:
        OutOfMemory: The encoder, or a single row, does not fit into memory.
    """
    index, settings = indexes.read(folder), indexes.read_settings(folder)
    retriever = Retriever(folder, machine)
    questions, expected = test["question"][:], test["answer"][:]
    own = _own_answers(index.entries, expected)
    ranks, best, confidences = [], [], []
    start, began = 0, time.perf_counter()
    for ranking in retriever.rankings(index, questions):
        at = np.arange(len(ranking.scores))
        first = ranking.scores.argmax(axis=1)
        ranks.append(_ranks(ranking.scores, own[start : start + len(at)]))
        best.append(ranking.found[at, first])
        confidences.append(ranking.confidences[at, first])
        start += len(at)
    seconds = time.perf_counter() - began
    found, known = np.concatenate(best), np.concatenate(confidences)
    texts = [index.entries.answers[row] for row in found]
    answers = [
        replace(answer, confidence=round(float(confidence), 4))
        for answer, confidence in zip(_scored(test, texts), known, strict=True)
    ]
    doubtful = retriever.best(index, unknown)[1] if unknown else np.zeros(0, dtype=np.float32)
    metrics = _metrics(np.concatenate(ranks), answers, known, doubtful, settings.threshold)
    return replace(metrics, answer_seconds=seconds), answers


def floor(parts: datasets.DatasetDict, unknown: Sequence[str]) -> tuple[ModelMetrics, list[Answer]]:
    """Measure BM25 on the same rows and questions: no training, no vectors, only words (Robertson et al. 1995)."""
    entries = indexes.entries(parts)
    answer_count = int(entries.answer_ids.max()) + 1
    words = bm25s.tokenize(entries.texts(), stopwords=None, show_progress=False)
    searcher = bm25s.BM25()
    searcher.index(words, show_progress=False)
    test = parts["test"]

    def scores(question: str) -> NDArray[np.float32]:
        tokens = bm25s.tokenize([question], stopwords=None, show_progress=False, return_ids=False)[0]
        found = np.zeros((1, answer_count), dtype=np.float32)
        np.maximum.at(found[0], entries.answer_ids, searcher.get_scores(tokens))
        return found

    own = _own_answers(entries, test["answer"][:])
    ranks, best, known = [], [], []
    for number, question in enumerate(test["question"][:]):  # one at a time: all scores would be questions x answers
        by_answer = scores(question)
        ranks.append(_ranks(by_answer, own[number : number + 1]))
        best.append(int(by_answer.argmax()))
        known.append(by_answer.max())
    first_rows = np.unique(entries.answer_ids, return_index=True)[1]
    answers = _scored(test, [entries.answers[first_rows[answer]] for answer in best])
    doubtful = np.array([scores(question).max() for question in unknown], dtype=np.float32)
    return _metrics(np.concatenate(ranks), answers, np.array(known), doubtful, None), answers


def _scored(test: datasets.Dataset, texts: Sequence[str]) -> list[Answer]:
    """Compare the best answer to each test question with the expected one."""
    rows = test.select_columns(["where", "question", "answer"])
    return [score(row, text, ended=True) for row, text in zip(rows, texts, strict=True)]


def _own_answers(entries: Entries, expected: Sequence[str]) -> NDArray[np.int64]:
    """Look up the id of each expected answer; the index holds them all."""
    numbers = dict(zip(entries.answers, entries.answer_ids.tolist(), strict=True))
    return np.array([numbers[answer] for answer in expected], dtype=np.int64)


def _ranks(scores: NDArray[np.float32], own: NDArray[np.int64]) -> NDArray[np.int64]:
    """Give the rank of each question's own answer, from 1; among equal scores the lower id comes first."""
    value = np.take_along_axis(scores, own[:, None], axis=1)
    before = np.arange(scores.shape[1]) < own[:, None]
    ranks: NDArray[np.int64] = 1 + (scores > value).sum(axis=1) + ((scores == value) & before).sum(axis=1)
    return ranks


def _metrics(
    ranks: NDArray[np.int64],
    answers: list[Answer],
    known: NDArray[np.floating],
    unknown: NDArray[np.floating],
    threshold: float | None,
) -> ModelMetrics:
    count = len(answers)
    right = np.array([row.answer == row.expected for row in answers])
    rates = {"recall_at_1": (int((ranks <= 1).sum()), count), "recall_at_5": (int((ranks <= 5).sum()), count)}
    if threshold is not None:
        rates["answered"] = int((known >= threshold).sum()), count
        rates["answered_rightly"] = int(((known >= threshold) & right).sum()), count
        if len(unknown):
            rates["unknown_answered"] = int((unknown >= threshold).sum()), len(unknown)
    reciprocal = np.where(ranks <= DEPTH, 1 / ranks, 0.0)
    values = {name: hits / rows for name, (hits, rows) in rates.items()}
    found = {name: intervals.rate(hits, rows) for name, (hits, rows) in rates.items()}
    found["mrr_at_10"] = intervals.bounded_ratio(reciprocal, np.ones(count))
    measured = ModelMetrics(
        loss=None,
        perplexity=None,
        token_accuracy=None,
        rows=count,
        auroc=auroc(known, unknown) if len(unknown) else None,
        unknown_rows=len(unknown) or None,
        threshold=threshold,
        recall_at_1=values["recall_at_1"],
        recall_at_5=values["recall_at_5"],
        mrr_at_10=float(reciprocal.mean()),
        answered=values.get("answered"),
        answered_rightly=values.get("answered_rightly"),
        unknown_answered=values.get("unknown_answered"),
        intervals={name: (interval.low, interval.high) for name, interval in found.items()},
        interval_kinds={name: interval.kind for name, interval in found.items()},
    )
    return add_metrics(measured, answers)


def auroc(known: NDArray[np.floating], unknown: NDArray[np.floating]) -> float:
    """Compute the area under the ROC curve: how often a known question has the greater confidence of a pair.

    It is the statistic of Mann and Whitney (1947); of equal confidences one half counts.
    """
    ordered = np.sort(unknown)
    below = np.searchsorted(ordered, known, side="left")
    not_above = np.searchsorted(ordered, known, side="right")
    return float((below + not_above).sum() / (2 * len(known) * len(unknown)))
