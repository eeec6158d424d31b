"""/predict of a retriever: the answer and its row, what is not known, alternatives, and what is refused."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx2
import pytest
from served import Served
from tiny_retriever import DNS, LONGEST, ROWS, publish

SECONDS = 60
NONSENSE = "zebra crossing"
WITHIN = 5e-6


def ask(server: Served, question: str, **options: Any) -> Any:
    response = httpx2.post(f"{server.url}/predict", json={"question": question, **options}, timeout=SECONDS)
    assert response.status_code == 200, response.text
    return response.json()


def refused(server: Served, **body: Any) -> str:
    response = httpx2.post(f"{server.url}/predict", json=body, timeout=SECONDS)
    assert response.status_code == 422, response.text
    return str(response.json()["error"]["message"])


@pytest.mark.parametrize("row", [row for row in ROWS if row["question"]], ids=lambda row: row["question"])
def test_an_indexed_question_gets_its_answer_and_row(retriever: Served, row: dict[str, Any]) -> None:
    found = ask(retriever, row["question"])
    assert (found["answer"], found["known"], found["question"]) == (row["answer"], True, row["question"])
    assert found["source"] == f"dataset.json row {ROWS.index(row)}"
    assert found["score"] == pytest.approx(1, abs=WITHIN)


def test_an_answer_names_its_model_revision_and_cost(retriever: Served, retriever_folder: Path) -> None:
    found = ask(retriever, "What is DNS?")
    assert found["model"] == str(retriever_folder)
    assert found["revision"].startswith("sha256:")
    usage, timing = found["usage"], found["timing"]
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"] > 6
    assert 0 <= timing["queued_ms"] <= timing["total_ms"]


def test_a_row_is_found_by_its_answer_too(retriever: Served) -> None:
    found = ask(retriever, "Water boils at 100 degrees.")
    assert (found["answer"], found["question"]) == ("Water boils at 100 degrees.", None)
    assert found["source"] == "dataset.json row 3"


def test_what_is_below_the_threshold_is_not_known(retriever: Served) -> None:
    before = retriever.metric("kickoff_unknown_total")
    found = ask(retriever, NONSENSE)
    assert retriever.metric("kickoff_unknown_total") == before + 1
    assert (found["answer"], found["known"], found["source"], found["question"]) == (None, False, None, None)
    assert found["confidence"] == found["alternatives"][0]["confidence"] < 0.7
    assert len(found["alternatives"]) == 3
    assert found["usage"]["completion_tokens"] == 0


def test_alternatives_are_distinct_answers_in_the_order_of_their_scores(retriever: Served) -> None:
    found = ask(retriever, "What is DNS?", top_k=20)
    everything = [found, *found["alternatives"]]
    answers = [one["answer"] for one in everything]
    assert sorted(answers) == sorted({row["answer"] for row in ROWS})
    scores = [one["score"] for one in everything]
    assert scores == sorted(scores, reverse=True)
    assert len(ask(retriever, "What is DNS?", top_k=1)["alternatives"]) == 0
    assert len(ask(retriever, "What is DNS?")["alternatives"]) == 2


def test_equal_scores_are_ordered_by_the_lower_id(tmp_path: Path) -> None:
    rows = [{"question": "What is DNS?", "answer": answer} for answer in ("A protocol.", "A system.", "A book.")]
    folder = publish(tmp_path / "tied", rows)
    with Served(folder) as server:
        found = ask(server, "What is DNS?")
        assert [one["answer"] for one in (found, *found["alternatives"])] == [row["answer"] for row in rows]


def test_published_prompts_are_used(tmp_path: Path) -> None:
    folder = publish(tmp_path / "prompted", prompts={"query": "query: ", "document": "passage: "})
    with Served(folder) as server:
        found = ask(server, "What is DNS?")
        assert (found["answer"], found["score"]) == (DNS, pytest.approx(1, abs=WITHIN))
        text = " ".join(["a"] * (LONGEST - 4))  # [CLS] query : ... [SEP]
        assert ask(server, text)["usage"]["prompt_tokens"] == LONGEST
        assert f"found {LONGEST + 1} tokens" in refused(server, question=f"{text} a")


def test_a_question_that_is_too_long_is_refused_and_not_cut(retriever: Served) -> None:
    text = " ".join(["a"] * (LONGEST - 2))
    assert ask(retriever, text)["usage"]["prompt_tokens"] == LONGEST
    message = refused(retriever, question=f"{text} a")
    assert message.startswith(f"question: found {LONGEST + 1} tokens, expected at most {LONGEST}")
    assert f"found {5002} tokens" in refused(retriever, question="a " * 5000)
    assert retriever.metric("kickoff_rejected_total", reason="too_long") >= 2


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ({"question": " "}, "is empty or only spaces"),
        ({"question": "What?", "top_k": 0}, "top_k: "),
        ({"question": "What?", "top_k": 21}, "top_k: "),
        ({"question": "What?", "topK": 2}, "did you mean top_k?"),
        ({"question": "What?", "temperature": 0}, "temperature: "),
        ({"question": "What?", "stream": True}, "stream: "),
    ],
)
def test_what_a_retriever_does_not_take_is_refused(retriever: Served, body: dict[str, Any], says: str) -> None:
    assert says in refused(retriever, **body)


def test_answers_in_company_are_those_that_are_given_alone(retriever: Served) -> None:
    questions = [*(row["question"] for row in ROWS if row["question"]), NONSENSE, "a " * 25, "Who wrote the play?"]

    def facts(question: str) -> tuple[Any, ...]:
        found = ask(retriever, question)
        return found["answer"], found["source"], [one["answer"] for one in found["alternatives"]]

    def score(question: str) -> float:
        return float(ask(retriever, question)["score"])

    alone, scores = [facts(question) for question in questions], [score(question) for question in questions]
    with ThreadPoolExecutor(24) as threads:
        assert list(threads.map(facts, questions * 4)) == alone * 4
        assert list(threads.map(score, questions * 4)) == pytest.approx(scores * 4, abs=WITHIN)


def test_a_deadline_that_has_passed_is_said(retriever: Served) -> None:
    headers = {"X-Request-Timeout": "0.000001"}
    body = {"question": "What is DNS?"}
    response = httpx2.post(f"{retriever.url}/predict", json=body, headers=headers, timeout=SECONDS)
    assert (response.status_code, response.json()["error"]["code"]) == (503, "deadline_reached")


def test_routes_that_every_model_has(retriever: Served, retriever_folder: Path) -> None:
    (model,) = httpx2.get(f"{retriever.url}/v1/models", timeout=SECONDS).json()["data"]
    assert (model["id"], model["max_model_len"]) == (str(retriever_folder), LONGEST)
    assert httpx2.get(f"{retriever.url}/health", timeout=SECONDS).json() == {"status": "ok"}
    assert "<html data-retriever " in httpx2.get(retriever.url, timeout=SECONDS).text
    assert retriever.metric("kickoff_engine_up") == 1


def test_the_document_is_that_of_a_retriever(retriever: Served) -> None:
    document = httpx2.get(f"{retriever.url}/openapi.json", timeout=SECONDS).json()
    posts = {path for path, methods in document["paths"].items() if "post" in methods}
    assert posts == {"/predict", "/v1/chat/completions", "/v1/embeddings"}
    schemas = document["components"]["schemas"]
    assert set(schemas["RetrieverPredictRequest"]["properties"]) == {"question", "top_k"}
    assert "PredictRequest" not in schemas
