"""The index: rankings against a loop over all rows, its files, and which rows are in it."""

import json
from pathlib import Path

import numpy as np
import pytest
from datasets import Dataset, DatasetDict
from hypothesis import given, settings
from hypothesis import strategies as some

from job.retrieval import index as indexes
from job.retrieval.index import CERTAIN, Entries, Index, Settings

WIDTH = 4
GRID = np.eye(WIDTH, dtype=np.float32)
"""Few directions, so that equal scores are frequent."""
DIRECTIONS = [*GRID, *((left + right) / np.sqrt(2) for left in GRID for right in GRID if left is not right)]


@some.composite
def made(draw: some.DrawFn) -> Index:
    """An index whose rows share answers, some without a question."""
    count = draw(some.integers(1, 7))
    directions = some.lists(some.sampled_from(DIRECTIONS), min_size=count, max_size=count)
    numbers = draw(some.lists(some.integers(0, 3), min_size=count, max_size=count))
    order = {number: new for new, number in enumerate(dict.fromkeys(numbers))}
    asked = draw(some.lists(some.booleans(), min_size=count, max_size=count))
    question_rows = [row for row in range(count) if asked[row]]
    answers, rows, questions = (np.array(draw(directions), dtype=np.float32) for _ in range(3))
    answer_ids = np.array([order[number] for number in numbers], dtype=np.int64)
    entries = Entries(
        [f"answer {number}" for number in answer_ids],
        [f"question {row}" if asked[row] else None for row in range(count)],
        [f"row {row}" for row in range(count)],
        answer_ids,
    )
    found = questions[question_rows].reshape(-1, WIDTH)
    return Index(entries, answers, rows, found, np.array(question_rows, dtype=np.int64))


@settings(max_examples=150, deadline=None)
@given(made(), some.lists(some.sampled_from(DIRECTIONS), min_size=1, max_size=4), some.data())
def test_a_ranking_is_that_of_a_loop(index: Index, asked: list[np.ndarray], data: some.DataObject) -> None:
    count = int(index.entries.answer_ids.max()) + 1
    left_out = data.draw(some.none() | some.just([data.draw(some.integers(0, count - 1)) for _ in asked]))
    ranking = indexes.rank(index, np.array(asked, dtype=np.float32), left_out)
    assert ranking.scores.shape == ranking.confidences.shape == ranking.found.shape == (len(asked), count)
    places = {int(row): place for place, row in enumerate(index.question_rows)}
    for number, question in enumerate(asked):
        for answer in range(count):
            best, found = -np.inf, -1
            for row in np.flatnonzero(index.entries.answer_ids == answer).tolist():
                score = index.answers[row] @ question
                if row in places:
                    score = max(score, index.questions[places[row]] @ question)
                if score > best + 1e-6:
                    best, found = float(score), row
            confidence = best if best >= CERTAIN else float(index.rows[found] @ question)
            expected = -np.inf if left_out is not None and left_out[number] == answer else best
            assert ranking.found[number, answer] == found, "of rows with the same score the first"
            assert ranking.scores[number, answer] == pytest.approx(expected, abs=1e-6)
            assert ranking.confidences[number, answer] == pytest.approx(confidence, abs=1e-6)


@pytest.mark.parametrize(("cosine", "confidence"), [(1.0, 1.0), (0.995, 0.995), (0.985, 0.5)])
def test_a_questions_own_words_are_certain(cosine: float, confidence: float) -> None:
    entries = Entries(["yes"], ["what"], ["row 1"], np.array([0]))
    question = np.array([[1.0, 0.0]], dtype=np.float32)
    indexed = np.array([[cosine, np.sqrt(1 - cosine**2)]], dtype=np.float32)
    half = np.array([[0.5, np.sqrt(0.75)]], dtype=np.float32)
    index = Index(entries, -question, half, indexed, np.array([0]))
    assert indexes.rank(index, question).confidences[0, 0] == pytest.approx(confidence, abs=1e-6)


@settings(max_examples=30, deadline=None)
@given(made())
def test_what_is_written_is_read(tmp_path_factory: pytest.TempPathFactory, index: Index) -> None:
    folder = tmp_path_factory.mktemp("index")
    indexes.write(folder, index)
    indexes.write(folder, index)  # in place of an older one
    found = indexes.read(folder)
    for name in ("answers", "questions", "sources"):
        assert getattr(found.entries, name) == getattr(index.entries, name)
    assert (found.entries.answer_ids == index.entries.answer_ids).all()
    for name in ("answers", "rows", "questions", "question_rows"):
        ours, theirs = getattr(index, name), getattr(found, name)
        assert (ours.shape, ours.dtype) == (theirs.shape, theirs.dtype)
        assert (ours == theirs).all()
    assert sorted(path.name for path in folder.iterdir()) == ["answers.parquet", "index.safetensors"]
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o644}


def test_settings_are_read_as_they_were_written(tmp_path: Path) -> None:
    settings = Settings(0.4375, "Weiß ich nicht.")
    indexes.write_settings(tmp_path, settings)
    assert indexes.read_settings(tmp_path) == settings
    assert json.loads((tmp_path / "retriever.json").read_text()) == {
        "version": 1, "similarity": "cosine", "certain_score": 0.99, "threshold": 0.4375,
        "unknown_answer": "Weiß ich nicht.",
    }  # fmt: skip


def test_an_answer_that_only_a_test_row_has_is_in_the_index_without_its_question() -> None:
    train = [("a?", "A"), ("b?", "B"), ("again a?", "A")]
    test = [("is it b?", "B"), ("c?", "C"), ("or c?", "C")]
    parts = DatasetDict(
        {
            name: Dataset.from_list(
                [{"question": q, "answer": a, "where": f"{name} {number}"} for number, (q, a) in enumerate(rows)]
            )
            for name, rows in (("train", train), ("test", test))
        }
    )
    found = indexes.entries(parts)
    assert found.answers == ["A", "B", "A", "C", "C"]
    assert found.questions == ["a?", "b?", "again a?", None, None]
    assert found.sources == ["train 0", "train 1", "train 2", "test 1", "test 2"]
    assert found.answer_ids.tolist() == [0, 1, 0, 2, 2]
    assert found.texts() == ["a? A", "b? B", "again a? A", "C", "C"]
    assert found.question_rows() == [0, 1, 2]
