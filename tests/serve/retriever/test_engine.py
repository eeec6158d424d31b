"""The retriever's engine: batches, turns, cancelling, and a step without memory."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tiny_retriever import ROWS

from serve.retriever.engine import RetrieverEngine
from serve.retriever.load import load
from serve.retriever.request import Done, Request, Side


@pytest.fixture(scope="module")
def loaded(retriever_folder: Path) -> RetrieverEngine:
    return load(retriever_folder, "cpu", dtype="auto", max_rows=8, hang_seconds=30)


@pytest.fixture
def engine(loaded: RetrieverEngine) -> Iterator[RetrieverEngine]:
    """An engine of its own on the loaded parts; a step takes eight texts of eight tokens."""
    yield RetrieverEngine(loaded.encoder, loaded.index, context=32, step_tokens=64, max_rows=8)


def submit(engine: RetrieverEngine, id: str, *texts: str, top_k: int = 1, side: Side = "query") -> None:
    engine.submit(Request(id, list(texts), [engine.encoder.length(text, side) for text in texts], side, top_k))


def finish(engine: RetrieverEngine) -> list[Done]:
    done = []
    while not engine.idle:
        done += engine.step()
    return done


def test_all_that_wait_are_one_batch(engine: RetrieverEngine) -> None:
    for number in range(8):
        submit(engine, str(number), "Faust")
    assert (engine.waiting, engine.running, engine.idle) == (8, 0, False)
    assert [done.id for done in engine.step()] == [str(number) for number in range(8)]
    assert engine.idle and engine.steps == 1


def test_a_batch_is_bounded_by_its_padded_tokens(engine: RetrieverEngine) -> None:
    submit(engine, "short", "Faust")
    submit(engine, "long", "a " * 28)
    submit(engine, "next", "Faust")
    assert [done.id for done in engine.step()] == ["short", "long"]  # 2 times 30 tokens
    assert [done.id for done in engine.step()] == ["next"]


def test_a_question_does_not_wait_for_a_long_list(engine: RetrieverEngine) -> None:
    submit(engine, "list", *["Faust"] * 40, top_k=0)
    submit(engine, "question", "Who wrote Faust?")
    assert [done.id for done in engine.step()] == ["question"]
    assert engine.running == 1
    submit(engine, "document", "Faust", top_k=0, side="document")
    assert [done.id for done in engine.step()] == ["document"]
    (rest,) = finish(engine)
    assert (rest.id, len(rest.result)) == ("list", 40)


def test_a_cancelled_request_gives_nothing(engine: RetrieverEngine) -> None:
    submit(engine, "list", *["Faust"] * 20, top_k=0)
    submit(engine, "other", "Faust")
    engine.step()
    engine.cancel("list")
    engine.cancel("never there")
    assert engine.idle and finish(engine) == [] and engine.failures() == []


def test_what_is_too_long_is_refused(engine: RetrieverEngine) -> None:
    with pytest.raises(ValueError, match="33 tokens, expected at most 32"):
        submit(engine, "long", "a " * 31)
    with pytest.raises(ValueError, match="0 texts"):
        engine.submit(Request("none", [], []))
    assert engine.idle


def test_a_step_without_memory_fails_its_requests_only(
    engine: RetrieverEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(10):
        submit(engine, str(number), "Faust")
    encode = engine.encoder.encode

    def fail(*_: Any) -> Any:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory")

    monkeypatch.setattr(engine.encoder, "encode", fail)
    assert engine.step() == []
    failed = engine.failures()
    assert [failure.id for failure in failed] == [str(number) for number in range(8)]
    assert failed[0].reason.startswith("out of memory")
    monkeypatch.setattr(engine.encoder, "encode", encode)
    assert [done.id for done in finish(engine)] == ["8", "9"]
    for number in range(8):
        submit(engine, str(number), "Faust")
    assert len(engine.step()) == 4  # half a batch for a while
    finish(engine)


def test_a_mistake_is_not_taken_for_a_lack_of_memory(engine: RetrieverEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    submit(engine, "one", "Faust")

    def fail(*_: Any) -> Any:
        raise RuntimeError("shapes do not fit")

    monkeypatch.setattr(engine.encoder, "encode", fail)
    with pytest.raises(RuntimeError, match="shapes do not fit"):
        engine.step()


def test_the_search_is_that_of_all_rows_one_by_one(loaded: RetrieverEngine) -> None:
    questions = [row["question"] for row in ROWS if row["question"]] + ["zebra", "Faust and DNS", "How high"]
    vectors = loaded.encoder.encode(questions, "query")
    rows = loaded.index.rows
    asked = {int(row): vector for row, vector in zip(rows.question_rows, rows.questions, strict=True)}
    for vector, hits in zip(vectors, loaded.index.search(vectors, [20] * len(questions)), strict=True):
        best: dict[str, float] = {}
        for number, row in enumerate(ROWS):
            near = [rows.answers[number], *([asked[number]] if number in asked else [])]
            score = max(float(vector @ one) for one in near)
            best[row["answer"]] = max(score, best.get(row["answer"], -2.0))
        assert {hit.answer: hit.score for hit in hits} == pytest.approx(best, abs=1e-5)
        assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)
