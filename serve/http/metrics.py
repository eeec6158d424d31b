"""Declares the metrics of /metrics, with Prometheus' naming and base units.

It knows counters. It does not know who counts: `answer.py`, `ask.py`, `health.py` and the middleware.
"""

from enum import StrEnum

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info

REGISTRY = CollectorRegistry()
SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
TOKEN_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.25, 0.5, 1)

MODEL = Info("kickoff_model", "The served model and its revision.", registry=REGISTRY)
REQUESTS = Counter("kickoff_requests", "Requests answered.", ["route", "code"], registry=REGISTRY)
_REJECTED = Counter("kickoff_rejected", "Requests rejected, by reason.", ["reason"], registry=REGISTRY)
CANCELLED = Counter("kickoff_cancelled", "Requests whose client disconnected before the end.", registry=REGISTRY)
UNKNOWN = Counter("kickoff_unknown", "Questions whose answer is not known.", registry=REGISTRY)
TOKENS = Counter("kickoff_tokens", "Tokens of prompts and of answers.", ["direction"], registry=REGISTRY)
FIRST_TOKEN = Histogram(
    "kickoff_time_to_first_token_seconds",
    "Time from the request to its first token.",
    buckets=SECONDS,
    registry=REGISTRY,
)
PER_TOKEN = Histogram(
    "kickoff_time_per_token_seconds", "Time between the tokens of an answer.", buckets=TOKEN_SECONDS, registry=REGISTRY
)
DURATION = Histogram(
    "kickoff_request_seconds", "Time from the request to the full answer.", buckets=SECONDS, registry=REGISTRY
)
RUNNING = Gauge("kickoff_running", "Requests that the engines compute now.", registry=REGISTRY)
WAITING = Gauge("kickoff_waiting", "Accepted requests that wait for an engine.", registry=REGISTRY)
ENGINE_UP = Gauge(
    "kickoff_engine_up", "1 while the engine is connected and has loaded the model.", ["engine"], registry=REGISTRY
)
ENGINE_RUNNING = Gauge(
    "kickoff_engine_running", "Requests that the engine computes now.", ["engine"], registry=REGISTRY
)
STEPS = Gauge("kickoff_engine_steps", "Forward passes since the engine started.", ["engine"], registry=REGISTRY)
BEAT_AGE = Gauge(
    "kickoff_engine_heartbeat_age_seconds", "Time since the engine last reported.", ["engine"], registry=REGISTRY
)


class Rejected(StrEnum):
    """Every reason to reject a request. All of them are shown from the start, with 0."""

    OVERLOAD = "overload"
    TOO_LARGE = "too_large"
    TOO_LONG = "too_long"
    INVALID = "invalid"
    UNAUTHORIZED = "unauthorized"
    NOT_READY = "not_ready"
    SLOW = "slow"
    DEADLINE = "deadline"


def count_rejection(reason: Rejected) -> None:
    """Count a rejected request."""
    _REJECTED.labels(reason.value).inc()


for reason in Rejected:
    _REJECTED.labels(reason.value)
for direction in ("in", "out"):
    TOKENS.labels(direction)
