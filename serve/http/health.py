"""The routes about the server itself: health checks and metrics.

It knows the state of the HTTP process. It does not know questions or answers.
"""

from fastapi import APIRouter, Request, Response
from fastapi.responses import PlainTextResponse
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from serve.http import metrics, responses
from serve.http.errors import KEY_ERROR, Problem
from serve.http.state import AppState

router = APIRouter()


@router.get(
    "/health/live",
    response_model=responses.Health,
    responses={503: {"model": responses.Error}},
    summary="Liveness",
)
async def live(request: Request) -> responses.Health:
    """503 if every engine hangs and was not replaced; one that died and is restarting is alive, as is loading."""
    state: AppState = request.app.state.kickoff
    reason = state.not_ready_reason()
    if state.engines.beat_age > 2 * state.settings.hang_seconds:
        raise Problem(503, reason or "the engine hangs", "engine_dead")
    return responses.Health(status=reason or "ok")


@router.get(
    "/health/ready",
    response_model=responses.Health,
    responses={503: {"model": responses.Error}},
    summary="Readiness",
)
async def ready(request: Request) -> responses.Health:
    """503 while loading, while stopping, and whenever /health/live is 503."""
    state: AppState = request.app.state.kickoff
    if reason := state.not_ready_reason():
        raise Problem(503, reason, "not_ready")
    return responses.Health(status="ok")


@router.get(
    "/health",
    response_model=responses.Health,
    responses={503: {"model": responses.Error}},
    summary="Liveness and readiness",
)
async def health(request: Request) -> responses.Health:
    """200 while the engine lives and requests are welcome."""
    return await ready(request)


@router.get("/metrics", response_class=PlainTextResponse, responses=KEY_ERROR, summary="For Prometheus")
async def show_metrics(request: Request) -> Response:
    """All metrics, in Prometheus' text format."""
    # the engines' counts are a step old, so that a request that has just left may still count there
    state: AppState = request.app.state.kickoff
    running = min(sum(engine.counts["running"] for engine in state.engines.ready), state.admission.inside)
    metrics.RUNNING.set(running)
    metrics.WAITING.set(state.admission.inside - running)
    up = {engine.ready.number: engine for engine in state.engines.ready}
    for number in range(state.shared.engines):
        engine = up.get(number)
        metrics.ENGINE_UP.labels(number).set(engine is not None)
        metrics.ENGINE_RUNNING.labels(number).set(engine.counts["running"] if engine else 0)
        if engine:
            metrics.STEPS.labels(number).set(engine.counts["steps"])
            metrics.BEAT_AGE.labels(number).set(engine.beat_age)
    return Response(generate_latest(metrics.REGISTRY), media_type=CONTENT_TYPE_LATEST)
