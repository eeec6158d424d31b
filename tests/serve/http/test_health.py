"""What the server tells about itself: health to everybody, metrics and all else only to those with the key."""

import base64
from typing import Any

import httpx2
import pytest
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families
from served import Served
from tiny import ROWS

from serve.http.metrics import Rejected

QUESTION = ROWS[1]["question"]
SECONDS = 60
CLOSED = [
    *(("GET", path) for path in ("/", "/docs", "/redoc", "/openapi.json", "/metrics", "/v1/models", "/nothing")),
    *(("POST", path) for path in ("/predict", "/v1/chat/completions", "/health/other")),
]


def families(server: Served) -> dict[str, Metric]:
    headers = {"X-API-Key": server.key} if server.key else {}
    response = httpx2.get(f"{server.url}/metrics", headers=headers, timeout=SECONDS)
    assert response.status_code == 200
    assert response.headers["content-type"].startswith("text/plain; version=")
    return {family.name: family for family in text_string_to_metric_families(response.text)}


def ask(server: Served, **body: Any) -> httpx2.Response:
    return httpx2.post(f"{server.url}/predict", json={"question": QUESTION, **body}, timeout=SECONDS)


@pytest.mark.parametrize("path", ["/health", "/health/live", "/health/ready"])
@pytest.mark.parametrize("headers", [{}, {"Authorization": "Bearer wrong"}], ids=["no key", "wrong key"])
def test_health_is_open_to_all(guarded: Served, path: str, headers: dict[str, str]) -> None:
    response = httpx2.get(guarded.url + path, headers=headers, timeout=SECONDS)
    assert (response.status_code, response.json()) == (200, {"status": "ok"})


@pytest.mark.parametrize("method, path", CLOSED)
def test_every_other_route_needs_the_key(guarded: Served, method: str, path: str) -> None:
    response = httpx2.request(method, guarded.url + path, timeout=SECONDS)
    assert response.status_code == 401
    assert "Bearer" in response.headers["www-authenticate"]
    assert "Basic" in response.headers["www-authenticate"]
    error = response.json()["error"]
    assert (error["type"], error["code"]) == ("authentication_error", "invalid_api_key")
    assert "'Authorization: Bearer KEY'" in error["message"]


@pytest.mark.parametrize("method, path", CLOSED)
def test_the_key_opens_every_route(guarded: Served, method: str, path: str) -> None:
    headers = {"Authorization": f"Bearer {guarded.key}"}
    response = httpx2.request(method, guarded.url + path, headers=headers, timeout=SECONDS)
    expected = 404 if path in ("/nothing", "/health/other") else 422 if method == "POST" else 200
    assert response.status_code == expected


@pytest.mark.parametrize("path", ["/", "/docs", "/redoc", "/openapi.json", "/metrics", "/v1/models", "/health/ready"])
def test_without_a_key_set_all_is_open(server: Served, path: str) -> None:
    assert httpx2.get(server.url + path, timeout=SECONDS).status_code == 200


@pytest.mark.parametrize("user", ["", "ada", "ada lovelace"])
def test_a_browser_sends_the_key_as_password(guarded: Served, user: str) -> None:
    response = httpx2.get(guarded.url, auth=(user, guarded.key), timeout=SECONDS)
    assert response.status_code == 200
    assert response.headers["content-type"].startswith("text/html")


@pytest.mark.parametrize("scheme", ["bearer", "BEARER", "Bearer "])
def test_the_scheme_is_case_insensitive(guarded: Served, scheme: str) -> None:
    headers = {"Authorization": f"{scheme} {guarded.key}"}
    assert httpx2.get(f"{guarded.url}/v1/models", headers=headers, timeout=SECONDS).status_code == 200


@pytest.mark.parametrize(
    "value",
    [
        "",
        "Bearer",
        "Basic",
        "Basic !!!",
        "Basic YQ",
        "Bearer \xff\xfe",
        "Digest KEY",
        "KEY",
        "Bearer KEY KEY",
        "Basic KEY",
    ],
)
def test_anything_but_the_key_is_refused(guarded: Served, value: str) -> None:
    assert status_with(guarded, value.replace("KEY", guarded.key)) == 401


@pytest.mark.parametrize("pair", ["KEY:", "KEY", "ada:wrong", "ada:KEY:", "ada:KEYKEY", ":"])
def test_a_wrong_password_is_refused(guarded: Served, pair: str) -> None:
    sent = base64.b64encode(pair.replace("KEY", guarded.key).encode()).decode()
    assert status_with(guarded, f"Basic {sent}") == 401


def status_with(server: Served, authorization: str) -> int:
    headers = {b"authorization": authorization.encode("latin-1")}
    return httpx2.get(f"{server.url}/v1/models", headers=headers, timeout=SECONDS).status_code


def test_requests_without_the_key_are_counted(guarded: Served) -> None:
    before = guarded.metric("kickoff_rejected_total", reason="unauthorized")
    for _ in range(3):
        httpx2.get(f"{guarded.url}/v1/models", timeout=SECONDS)
    assert guarded.metric("kickoff_rejected_total", reason="unauthorized") == before + 3


def test_the_metrics_name_the_model_and_its_revision(server: Served) -> None:
    answer = ask(server).json()
    (info,) = families(server)["kickoff_model_info"].samples
    assert info.labels == {"model": answer["model"], "revision": answer["revision"]}


def test_every_metric_says_what_it_is(server: Served) -> None:
    for family in families(server).values():
        assert family.name.startswith("kickoff_")
        assert family.documentation and family.type in ("counter", "gauge", "histogram")


def test_an_answer_is_counted_in_every_way(server: Served) -> None:
    names = {
        "requests": ("kickoff_requests_total", {"route": "/predict", "code": "200"}),
        "in": ("kickoff_tokens_total", {"direction": "in"}),
        "out": ("kickoff_tokens_total", {"direction": "out"}),
        "first tokens": ("kickoff_time_to_first_token_seconds_count", {}),
        "first token seconds": ("kickoff_time_to_first_token_seconds_sum", {}),
        "between tokens": ("kickoff_time_per_token_seconds_count", {}),
        "durations": ("kickoff_request_seconds_count", {}),
        "seconds": ("kickoff_request_seconds_sum", {}),
        "steps": ("kickoff_engine_steps", {}),
        "cancelled": ("kickoff_cancelled_total", {}),
    }
    before = {name: server.metric(of, **labels) for name, (of, labels) in names.items()}
    answer = ask(server).json()
    usage, timing = answer["usage"], answer["timing"]
    seen = {name: server.metric(of, **labels) - before[name] for name, (of, labels) in names.items()}
    assert seen["in"] == usage["prompt_tokens"] and seen["out"] == usage["completion_tokens"]
    assert [seen[name] for name in ("requests", "first tokens", "between tokens", "durations")] == [1, 1, 1, 1]
    assert seen["steps"] == usage["completion_tokens"]
    assert seen["cancelled"] == 0
    assert 0 < seen["first token seconds"] <= seen["seconds"]
    # the histogram's clock is the answer's
    assert abs(seen["seconds"] * 1000 - timing["total_ms"]) < 500


def test_a_histogram_counts_every_answer_in_its_last_bucket(server: Served) -> None:
    ask(server)
    family = families(server)["kickoff_time_to_first_token_seconds"]
    buckets = [sample.value for sample in family.samples if sample.name.endswith("_bucket")]
    (count,) = [sample.value for sample in family.samples if sample.name.endswith("_count")]
    assert buckets == sorted(buckets) and buckets[-1] == count > 0


@pytest.mark.parametrize(
    "reason, code, body",
    [
        ("invalid", 422, {"temperature": 3}),
        ("too_long", 400, {"question": "plus " * 200}),
        ("too_large", 413, {"question": "a" * 2**20}),
    ],
)
def test_a_request_that_is_turned_away_is_counted_by_its_reason(
    server: Served, reason: str, code: int, body: dict[str, Any]
) -> None:
    before = server.metric("kickoff_rejected_total", reason=reason)
    assert ask(server, **body).status_code == code
    assert server.metric("kickoff_rejected_total", reason=reason) == before + 1


def test_every_reason_to_turn_a_request_away_is_shown_from_the_start(guarded: Served) -> None:
    samples = families(guarded)["kickoff_rejected"].samples
    shown = {sample.labels["reason"] for sample in samples if sample.name.endswith("_total")}
    assert shown == set(Rejected) >= {"overload", "deadline"}


def test_paths_that_are_no_routes_are_counted_as_one(server: Served) -> None:
    before = server.metric("kickoff_requests_total", route="other", code="404")
    for path in ("/wp-login.php", "/.env", "/a/b/c"):
        httpx2.get(server.url + path, timeout=SECONDS)
    assert server.metric("kickoff_requests_total", route="other", code="404") == before + 3
    assert "wp-login" not in httpx2.get(f"{server.url}/metrics", timeout=SECONDS).text


def test_an_idle_server_has_no_requests_and_a_heartbeat(server: Served) -> None:
    ask(server)
    assert server.metric("kickoff_running") == server.metric("kickoff_waiting") == 0
    assert server.metric("kickoff_engine_up") == 1
    assert 0 <= server.metric("kickoff_engine_heartbeat_age_seconds") < 10
