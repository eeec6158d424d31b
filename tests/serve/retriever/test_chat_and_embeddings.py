"""A retriever's /v1/chat/completions and /v1/embeddings, asked with the real openai client."""

import base64
from typing import Any

import httpx2
import numpy as np
import openai
import pytest
from sentence_transformers import SentenceTransformer
from served import Served
from tiny_retriever import DNS, LONGEST, UNKNOWN

SECONDS = 60


@pytest.fixture
def client(retriever: Served) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{retriever.url}/v1", api_key="none", max_retries=0)


def say(client: openai.OpenAI, *contents: str, **options: Any) -> Any:
    """Ask with messages of a user and an assistant in turn."""
    roles = ["user", "assistant"] * len(contents)
    messages: Any = [{"role": role, "content": text} for role, text in zip(roles, contents, strict=False)]
    model = client.models.list().data[0].id
    return client.chat.completions.create(model=model, messages=messages, **options)


def post(server: Served, path: str, **body: Any) -> httpx2.Response:
    return httpx2.post(f"{server.url}{path}", json=body, timeout=SECONDS)


def test_the_last_question_is_answered(client: openai.OpenAI) -> None:
    answer = say(client, "Who wrote Faust?", "Goethe.", "What is DNS?", temperature=1.5, top_p=0.3, seed=4, user="me")
    (choice,) = answer.choices
    assert (choice.message.content, choice.finish_reason) == (DNS, "stop")
    assert (answer.known, answer.source) == (True, "dataset.json row 0")
    assert answer.score == pytest.approx(1, abs=1e-5)
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens


def test_an_unknown_question_gets_the_published_sentence(client: openai.OpenAI) -> None:
    answer = say(client, "zebra crossing")
    assert answer.choices[0].message.content == UNKNOWN
    assert (answer.known, answer.source) == (False, None)


def test_max_tokens_cut_the_text(client: openai.OpenAI) -> None:
    answer = say(client, "Who wrote Faust?", max_tokens=2)
    assert (answer.choices[0].message.content, answer.choices[0].finish_reason) == ("Goethe wrote", "length")
    assert answer.usage.completion_tokens == 2
    assert say(client, "Who wrote Faust?", max_completion_tokens=100).choices[0].finish_reason == "stop"
    assert say(client, "Who wrote Faust?", max_tokens=-1).choices[0].finish_reason == "stop"


@pytest.mark.parametrize(
    ("stop", "text"), [("wrote", "Goethe "), (["Faust", "play"], "Goethe wrote the "), ("zebra", None), ("Go", "")]
)
def test_stop_texts_end_the_answer_before_them(client: openai.OpenAI, stop: Any, text: str | None) -> None:
    (choice,) = say(client, "Who wrote Faust?", stop=stop).choices
    whole = "Goethe wrote the play Faust."
    assert (choice.message.content, choice.finish_reason) == (whole if text is None else text, "stop")


def test_a_stream_is_one_piece_and_its_end(client: openai.OpenAI) -> None:
    stream = say(client, "What is DNS?", stream=True, stream_options={"include_usage": True})
    first, end, usage = list(stream)
    assert (first.choices[0].delta.role, first.choices[0].delta.content) == ("assistant", DNS)
    assert (end.choices[0].finish_reason, end.known, end.source) == ("stop", True, "dataset.json row 0")
    assert usage.choices == [] and usage.usage.completion_tokens > 0


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("n", 2),
        ("logprobs", True),
        ("tools", [{"type": "function", "function": {"name": "f"}}]),
        ("response_format", {"type": "json_object"}),
        ("logit_bias", {"5": 1}),
        ("ignore_eos", True),
        ("continue_final_message", True),
        ("min_tokens", 5),
        ("temprature", 1),
    ],
)
def test_what_is_not_there_is_refused_by_its_name(retriever: Served, field: str, value: Any) -> None:
    messages = [{"role": "user", "content": "What is DNS?"}]
    response = post(retriever, "/v1/chat/completions", messages=messages, **{field: value})
    assert response.status_code == 422
    assert response.json()["error"]["param"].startswith(field)


def test_a_chat_without_a_question_is_refused(retriever: Served) -> None:
    response = post(retriever, "/v1/chat/completions", messages=[{"role": "assistant", "content": "Hello"}])
    assert response.status_code == 422
    assert "no message of a user" in response.json()["error"]["message"]


def test_another_model_is_404(retriever: Served) -> None:
    messages = [{"role": "user", "content": "What is DNS?"}]
    assert post(retriever, "/v1/chat/completions", messages=messages, model="other").status_code == 404
    assert post(retriever, "/v1/embeddings", input="a", model="other").status_code == 404


@pytest.mark.parametrize("format", ["float", "base64"])
def test_embeddings_are_those_of_sentence_transformers(
    client: openai.OpenAI, retriever_folder: Any, format: Any
) -> None:
    texts = ["What is DNS?", "a " * 20, "Who wrote Faust?"]
    expected = SentenceTransformer(str(retriever_folder), device="cpu").encode_query(texts)
    made = client.embeddings.create(model=client.models.list().data[0].id, input=texts, encoding_format=format)
    assert [one.index for one in made.data] == [0, 1, 2]
    for one, vector in zip(made.data, expected, strict=True):
        raw: Any = one.embedding
        numbers = np.frombuffer(base64.b64decode(raw), "<f4") if isinstance(raw, str) else np.array(raw)
        assert numbers == pytest.approx(vector, abs=1e-5)
    assert made.usage.prompt_tokens == made.usage.total_tokens > 20


def test_more_texts_than_a_step_takes(client: openai.OpenAI) -> None:
    texts = [f"{'a ' * (number % 25)}Faust" for number in range(256)]
    made = client.embeddings.create(model=client.models.list().data[0].id, input=texts)
    assert made.data[3].embedding == pytest.approx(made.data[28].embedding, abs=1e-5)
    assert len(made.data) == 256


def test_a_document_gets_the_prompt_of_a_document(retriever: Served) -> None:
    made = [post(retriever, "/v1/embeddings", input="Faust", input_type=side) for side in ("query", "document")]
    assert [one.status_code for one in made] == [200, 200]


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ({"input": []}, "input"),
        ({"input": ["a", ""]}, "is empty, expected a text"),
        ({"input": [[1, 2]]}, "found token ids, expected a text"),
        ({"input": ["a"] * 257}, "256"),
        ({"input": ["a", "a " * LONGEST]}, f"input.1: found {LONGEST + 2} tokens"),
        ({"input": "a", "dimensions": 7}, "dimensions: found 7, expected 48"),
        ({"input": "a", "encoding_format": "int8"}, "encoding_format"),
        ({"input": "a", "input_typ": "query"}, "did you mean input_type?"),
    ],
)
def test_embeddings_that_cannot_be_made_are_refused(retriever: Served, body: dict[str, Any], says: str) -> None:
    response = post(retriever, "/v1/embeddings", **body)
    assert response.status_code == 422
    assert says in response.json()["error"]["message"]


def test_a_generator_has_no_embeddings(server: Served) -> None:
    response = post(server, "/v1/embeddings", input="a")
    assert response.status_code == 404
    assert response.json()["error"]["message"].startswith("a generator is served")
