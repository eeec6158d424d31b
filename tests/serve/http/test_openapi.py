"""/openapi.json is true: requests made from it, right and wrong ones, get only what it announces."""

from collections import Counter
from typing import Any

import httpx2
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from pydantic import BaseModel
from schemathesis import GenerationMode, checks
from schemathesis.checks import load_all_checks
from served import Served
from tiny import ROWS

from serve.http import responses, schema

QUESTION = ROWS[1]["question"]
SECONDS = 60
EXAMPLES = 30
GETS = ["/", "/health", "/health/live", "/health/ready", "/metrics", "/v1/models"]
BY_NAME = "/v1/models/{id}"
POSTS = ["/predict", "/v1/chat/completions"]
load_all_checks()
CHECKS = [
    checks.not_a_server_error,
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_schema_conformance,
]
bounded = settings(max_examples=EXAMPLES, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))


@pytest.fixture(scope="module")
def document(server: Served) -> dict[str, Any]:
    response = httpx2.get(f"{server.url}/openapi.json", timeout=SECONDS)
    assert response.status_code == 200
    found: dict[str, Any] = response.json()
    return found


@pytest.fixture(scope="module")
def api(server: Served) -> Any:
    return schemathesis.openapi.from_url(f"{server.url}/openapi.json")


def test_these_are_all_operations(document: dict[str, Any]) -> None:
    found = {(method, path) for path, methods in document["paths"].items() for method in methods}
    assert found == {*(("get", path) for path in [*GETS, BY_NAME]), *(("post", path) for path in POSTS)}


@pytest.mark.parametrize("path", GETS)
@pytest.mark.parametrize("name", ["server", "guarded"])
def test_a_get_answers_as_the_document_says(request: pytest.FixtureRequest, api: Any, name: str, path: str) -> None:
    """From `guarded` without its key: 401, except for health."""
    asked: Served = request.getfixturevalue(name)

    @settings(bounded, max_examples=2)
    @given(case=api[path]["GET"].as_strategy(generation_mode=GenerationMode.POSITIVE))
    def answered(case: Any) -> None:
        response = case.call(base_url=asked.url, timeout=SECONDS)
        assert response.status_code == (200 if name == "server" or path.startswith("/health") else 401)
        case.validate_response(response, checks=CHECKS)

    answered()


def test_a_model_is_found_by_its_name_and_by_no_other(server: Served, api: Any) -> None:
    name = httpx2.get(f"{server.url}/v1/models", timeout=SECONDS).json()["data"][0]["id"]
    assert httpx2.get(f"{server.url}/v1/models/{name}", timeout=SECONDS).json()["id"] == name

    @bounded
    @given(case=api[BY_NAME]["GET"].as_strategy(generation_mode=GenerationMode.POSITIVE))
    def answered(case: Any) -> None:
        response = case.call(timeout=SECONDS)
        assert response.status_code == 404
        case.validate_response(response, checks=CHECKS)

    answered()


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
    # how many of the valid ones name this model and fit into its context is chance: what was drawn before decides
    assert mode is GenerationMode.POSITIVE or (statuses[422] >= 3 and not statuses[200])


@pytest.mark.parametrize("path", POSTS)
def test_a_stream_is_made_of_the_events_that_the_document_announces(api: Any, path: str) -> None:
    bodies = {POSTS[0]: {"question": QUESTION}, POSTS[1]: {"messages": [{"role": "user", "content": QUESTION}]}}
    case = api[path]["POST"].Case(body={**bodies[path], "stream": True}, media_type="application/json")
    response = case.call(timeout=SECONDS)
    assert response.headers["content-type"][0].startswith("text/event-stream")
    case.validate_response(response, checks=CHECKS)


def test_the_response_check_detects_a_wrong_answer(api: Any) -> None:
    """The checks are real: an answer of one route is none of another's."""
    live, models = api["/health/live"]["GET"].Case(), api["/v1/models"]["GET"].Case()
    with pytest.raises(schemathesis.core.failures.FailureGroup, match="required property"):
        models.validate_response(live.call(timeout=SECONDS), checks=CHECKS)


def test_the_document_announces_every_refusal(document: dict[str, Any]) -> None:
    for path in POSTS:
        announced = document["paths"][path]["post"]["responses"]
        assert {"200", "400", "401", "408", "413", "415", "422", "429", "431", "503"} <= announced.keys()
        refusals = [response for status, response in announced.items() if status != "200"]
        schemas = {response["content"]["application/json"]["schema"]["$ref"] for response in refusals}
        assert schemas == {"#/components/schemas/Error"}
    assert "404" in document["paths"]["/v1/chat/completions"]["post"]["responses"]


def test_the_time_limit_is_announced_as_a_number_alone(document: dict[str, Any]) -> None:
    for path in POSTS:
        (parameter,) = document["paths"][path]["post"]["parameters"]
        assert (parameter["name"], parameter["in"], parameter["required"]) == ("x-request-timeout", "header", False)
        assert parameter["schema"]["type"] == "number"


def test_every_example_is_valid_and_a_request_of_it_is_answered(server: Served, document: dict[str, Any]) -> None:
    found = {
        name: component["examples"]
        for name, component in document["components"]["schemas"].items()
        if "examples" in component
    }
    assert found.keys() == {"PredictRequest", "PredictResponse", "ChatRequest"}
    for name, examples in found.items():
        model: type[BaseModel] = getattr(schema, name, None) or getattr(responses, name)
        for example in examples:
            assert model.model_validate(example).model_dump(exclude_unset=True) == example
    for path, name in zip(POSTS, ("PredictRequest", "ChatRequest"), strict=True):
        response = httpx2.post(server.url + path, json=found[name][0], timeout=SECONDS)
        assert response.status_code == 200, response.text


@pytest.mark.parametrize("path", ["/docs", "/redoc"])
def test_the_document_can_be_read_in_a_browser(server: Served, path: str) -> None:
    response = httpx2.get(server.url + path, timeout=SECONDS)
    assert response.status_code == 200
    assert response.headers["content-type"].startswith("text/html")
    assert "/openapi.json" in response.text
