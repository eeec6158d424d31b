"""The metrics of a retriever: known values of hand-made rankings, BM25 beside it, and whole measurements."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from datasets import Dataset, DatasetDict
from finding import PAIRS, REWORDED, ROWS, UNKNOWN
from hypothesis import given
from hypothesis import strategies as some
from machines import CPU

from job.config.schema import RetrieverSection
from job.evaluation import retrieval
from job.evaluation.retrieval import auroc
from job.model.encoder import load_encoder
from job.retrieval import index as indexes
from job.retrieval import retriever
from job.retrieval.retriever import Retriever
from job.run import fact_files
from job.run.facts import Answer, Answers, Metrics, ModelMetrics


def dataset(rows: list[dict[str, str]], name: str) -> Dataset:
    return Dataset.from_list([{**row, "where": f"{name} {number}"} for number, row in enumerate(rows)])


PARTS = DatasetDict(train=dataset(ROWS, "train"), test=dataset(REWORDED, "test"))


@pytest.fixture
def folder(fetched_encoder: Path, tmp_path: Path) -> Path:
    """The tiny encoder, to get an index."""
    load_encoder(fetched_encoder).save_pretrained(str(tmp_path / "model"), create_model_card=False)
    return tmp_path / "model"


@pytest.mark.parametrize(
    ("known", "unknown", "expected"),
    [
        ([0.9, 0.8], [0.1, 0.2], 1.0),
        ([0.1], [0.9], 0.0),
        ([0.5], [0.5], 0.5),
        ([0.2, 0.6], [0.4], 0.5),
        ([0.5, 0.7], [0.5, 0.6, 0.8], 2.5 / 6),
    ],
)
def test_auroc(known: list[float], unknown: list[float], expected: float) -> None:
    assert auroc(np.array(known), np.array(unknown)) == pytest.approx(expected)


@given(*(some.lists(some.sampled_from([0.1, 0.2, 0.3, 0.4]), min_size=1, max_size=9) for _ in range(2)))
def test_auroc_is_the_share_of_pairs(known: list[float], unknown: list[float]) -> None:
    pairs = [1.0 if left > right else 0.5 * (left == right) for left in known for right in unknown]
    assert auroc(np.array(known), np.array(unknown)) == pytest.approx(sum(pairs) / len(pairs))


def test_ranks_count_from_one_and_ties_by_id() -> None:
    scores = np.array([[0.9, 0.5, 0.5, 0.1]] * 4, dtype=np.float32)
    assert retrieval._ranks(scores, np.arange(4)).tolist() == [1, 2, 3, 4]


def test_known_values_of_hand_made_ranks() -> None:
    ranks = np.array([1, 2, 5, 10, 11])
    given = ["a", "x", "a", "x", "x"]
    answers = [Answer(f"row {number}", "q", "a", text, 0.0, True) for number, text in enumerate(given)]
    known, unknown = np.array([0.9, 0.8, 0.4, 0.6, 0.1]), np.array([0.7, 0.5])
    found = retrieval._metrics(ranks, answers, known, unknown, 0.6)
    expected = {
        "recall_at_1": 0.2, "recall_at_5": 0.6, "mrr_at_10": (1 + 1 / 2 + 1 / 5 + 1 / 10) / 5, "answered": 0.6,
        "answered_rightly": 0.2, "unknown_answered": 0.5, "auroc": 0.5, "exact_match": 0.4,
    }  # fmt: skip
    assert {name: found.value(name) for name in expected} == pytest.approx(expected)
    assert (found.rows, found.answered_rows, found.unknown_rows, found.threshold) == (5, 5, 2, 0.6)
    assert (found.loss, found.token_accuracy) == (None, None)
    for name in ("recall_at_1", "answered", "unknown_answered"):
        low, high = found.intervals[name]
        assert low <= expected[name] <= high
        assert found.interval_kinds[name] == "Wilson"
    assert found.interval_kinds["mrr_at_10"] == "bootstrap"


def test_without_unknown_questions_nothing_is_said_about_them() -> None:
    answers = [Answer("row", "q", "a", "a", 1.0, True)]
    found = retrieval._metrics(np.array([1]), answers, np.array([0.5]), np.zeros(0), None)
    for name in ("auroc", "unknown_answered", "unknown_rows", "answered", "threshold"):
        assert getattr(found, name) is None
    assert "unknown_answered" not in found.intervals


def test_bm25_finds_the_row_whose_words_it_shares() -> None:
    found, answers = retrieval.floor(PARTS, UNKNOWN)
    assert [row.answer for row in answers[:3]] == [row["answer"] for row in REWORDED[:3]]
    assert found.recall_at_1 is not None and found.recall_at_1 >= 0.75
    assert found.threshold is None and found.answered is None
    assert found.auroc is not None and found.auroc > 0.5


def test_bm25_ranks_an_answer_by_the_best_of_its_rows() -> None:
    rows = [{"question": f"zebra {word}", "answer": word} for word in ("one", "two", "three")]
    rows += [{"question": "quagga stripes", "answer": "one"}]
    parts = DatasetDict(train=dataset(rows, "a"), test=dataset([{"question": "a quagga?", "answer": "one"}], "b"))
    found, answers = retrieval.floor(parts, [])
    assert (found.recall_at_1, answers[0].answer) == (1.0, "one")


def test_a_measurement_is_that_of_a_loop(folder: Path) -> None:
    threshold = retriever.build(folder, PARTS, RetrieverSection(max_wrong=0.3), UNKNOWN[:4], CPU)
    found, answers = retrieval.evaluate(folder, PARTS["test"], UNKNOWN[4:], CPU)
    encoder = load_encoder(folder)
    entries = indexes.read(folder).entries

    def encode(texts: list[str]) -> Any:
        return np.asarray(encoder.encode(texts, normalize_embeddings=True))

    by_answer, by_row = encode(entries.answers), encode(entries.texts())
    by_question = encode([question or "" for question in entries.questions])
    ranks, confidences = [], []
    for row in [*REWORDED, *({"question": question, "answer": ""} for question in UNKNOWN[4:])]:
        asked = encode([row["question"]])[0]
        scores = by_answer @ asked
        has_question = [question is not None for question in entries.questions]
        scores = np.where(has_question, np.maximum(scores, by_question @ asked), scores)
        best = int(scores.argmax())
        confidences.append(float(scores[best] if scores[best] >= 0.99 else by_row[best] @ asked))
        order = list(dict.fromkeys(entries.answers[at] for at in np.argsort(-scores, kind="stable")))
        if row["answer"]:
            ranks.append(order.index(row["answer"]) + 1)
    assert found.mrr_at_10 == pytest.approx(sum(1 / rank for rank in ranks if rank <= 10) / len(ranks))
    assert found.recall_at_5 == sum(rank <= 5 for rank in ranks) / len(ranks)
    assert found.answered == sum(confidence >= threshold for confidence in confidences[:4]) / 4
    assert found.unknown_answered == sum(confidence >= threshold for confidence in confidences[4:]) / 3
    assert [row.confidence for row in answers] == pytest.approx(confidences[:4], abs=1e-4)
    assert [(row.where, row.expected) for row in answers] == [
        (f"test {number}", row["answer"]) for number, row in enumerate(REWORDED)
    ]


@pytest.mark.parametrize("max_wrong", [0.2, 0.5])
def test_the_threshold_lets_no_more_unknown_questions_through(max_wrong: float, folder: Path) -> None:
    retriever.build(folder, PARTS, RetrieverSection(max_wrong=max_wrong), UNKNOWN, CPU)
    settings = indexes.read_settings(folder)
    _, confidences = Retriever(folder, CPU).best(indexes.read(folder), UNKNOWN)
    answered = sum(confidence >= settings.threshold for confidence in confidences)
    assert answered == math.floor(max_wrong * len(UNKNOWN))


def test_a_threshold_of_the_config_is_kept(folder: Path) -> None:
    section = RetrieverSection(threshold=0.123456, unknown_answer="No idea.")
    assert retriever.build(folder, PARTS, section, UNKNOWN, CPU) == 0.123456
    assert vars(indexes.read_settings(folder)) == {"threshold": 0.123456, "unknown_answer": "No idea."}


def test_without_unknown_questions_each_row_is_asked_without_its_answer(folder: Path) -> None:
    found = retriever.build(folder, PARTS, RetrieverSection(max_wrong=0.25), [], CPU)
    index = indexes.read(folder)
    questions = [question for question, _ in PAIRS]
    _, confidences = Retriever(folder, CPU).best(index, questions, index.entries.answer_ids[:20].tolist())
    assert sum(confidence >= found for confidence in confidences) <= 5
    one = DatasetDict(train=dataset(ROWS[:1], "train"), test=dataset([], "test"))
    one["test"] = PARTS["test"].select([])
    assert retriever.build(folder, one, RetrieverSection(), [], CPU) == -1.0, "there is no other answer to confuse"


def test_it_answers_as_its_server_does(folder: Path) -> None:
    retriever.build(folder, PARTS, RetrieverSection(threshold=0.9, unknown_answer="No idea."), [], CPU)
    known, unknown = retriever.answer(folder, [PAIRS[0][0], UNKNOWN[0]], CPU)
    assert known == f"{PAIRS[0][1]} (1.00)"
    assert unknown.startswith("No idea. (0.")


def test_a_run_measures_both_models_and_bm25(found: Path) -> None:
    metrics, answers = fact_files.read(found, Metrics), fact_files.read(found, Answers)
    assert metrics is not None and answers is not None
    for of in (metrics.model, metrics.base, metrics.bm25):
        assert isinstance(of, ModelMetrics)
        assert (of.rows, of.unknown_rows) == (4, 3)
    assert {len(of) for of in (answers.model, answers.base, answers.bm25)} == {4}
    assert all(row.confidence is not None for row in [*answers.model, *answers.base])
