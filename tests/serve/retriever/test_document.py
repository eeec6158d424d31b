"""A retriever's /openapi.json is true: requests made from it get only what it announces, and its examples work."""

from collections import Counter
from typing import Any

import httpx2
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis import GenerationMode, checks
from schemathesis.checks import load_all_checks
from served import Served

SECONDS = 60
EXAMPLES = 20
POSTS = ["/predict", "/v1/chat/completions", "/v1/embeddings"]
load_all_checks()
CHECKS = [
    checks.not_a_server_error,
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_schema_conformance,
]
bounded = settings(max_examples=EXAMPLES, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))


@pytest.fixture(scope="module")
def document(retriever: Served) -> dict[str, Any]:
    found: dict[str, Any] = httpx2.get(f"{retriever.url}/openapi.json", timeout=SECONDS).json()
    return found


@pytest.fixture(scope="module")
def api(retriever: Served) -> Any:
    return schemathesis.openapi.from_url(f"{retriever.url}/openapi.json")


@pytest.mark.parametrize("mode", list(GenerationMode), ids=lambda mode: mode.value)
@pytest.mark.parametrize("path", POSTS)
def test_a_post_answers_as_the_document_says(api: Any, path: str, mode: GenerationMode) -> None:
    statuses: Counter[int] = Counter()

    @bounded
    @given(case=api[path]["POST"].as_strategy(generation_mode=mode))
    def answered(case: Any) -> None:
        response = case.call(timeout=SECONDS)
        statuses[response.status_code] += 1
        late = response.status_code == 503 and response.json()["error"]["code"] == "deadline_reached"
        case.validate_response(response, checks=CHECKS[1:] if late else CHECKS)  # a time limit of 1e-38 s is valid

    answered()
    assert sum(statuses.values()) >= EXAMPLES
    assert mode is GenerationMode.POSITIVE or (statuses[422] >= 3 and not statuses[200])


def test_every_refusal_is_announced(document: dict[str, Any]) -> None:
    for path in POSTS:
        announced = document["paths"][path]["post"]["responses"]
        assert {"200", "400", "401", "408", "413", "415", "422", "429", "431", "503"} <= announced.keys()


def test_every_example_of_a_request_is_answered(retriever: Served, document: dict[str, Any]) -> None:
    schemas = document["components"]["schemas"]
    for path, name in zip(POSTS, ("RetrieverPredictRequest", "RetrieverChatRequest", "EmbeddingsRequest"), strict=True):
        (example,) = schemas[name]["examples"]
        response = httpx2.post(retriever.url + path, json=example, timeout=SECONDS)
        assert response.status_code == 200, response.text
