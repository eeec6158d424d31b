"""The manifests that serve: probes, updates, options, network, key and scaling."""

import re

import pytest
import yaml
from checkout import ROOT
from manifests import K8S, NAMES, SERVE, container, environment, of_kind, one, pod, workload
from typer.main import get_command

from serve.__main__ import KEY
from serve.__main__ import app as serve_app
from serve.http.middleware import OPEN_PATHS
from serve.http.routes import router
from serve.settings import Settings

SERVING = pytest.mark.parametrize("name", [name for name in NAMES if name.startswith("serve")])


@SERVING
def test_probes(name: str) -> None:
    served = {route.path for route in router.routes if "GET" in route.methods}
    expected = {"startupProbe": "/health/ready", "readinessProbe": "/health/ready", "livenessProbe": "/health/live"}
    assert set(expected.values()) <= served & set(OPEN_PATHS)
    for probe, path in expected.items():
        found = container(name)[probe]
        assert found["httpGet"] == {"path": "/health" if "vllm" in name else path, "port": "http"}  # and no header
    startup = container(name)["startupProbe"]
    start = startup["periodSeconds"] * startup["failureThreshold"]
    assert 600 <= start < workload(name)["spec"]["progressDeadlineSeconds"]
    live = container(name)["livenessProbe"]
    assert live["periodSeconds"] * live["failureThreshold"] >= 60


@SERVING
def test_a_terminating_pod_may_finish(name: str) -> None:
    values, grace = environment(name), pod(name)["terminationGracePeriodSeconds"]
    before = container(name).get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0)
    if "vllm" in name:
        (drain,) = [arg for arg in container(name)["args"] if arg.startswith("--shutdown-timeout=")]
        assert before >= 5 and before + float(drain.partition("=")[2]) + 5 < grace
        return
    delay = float(values.get("KICKOFF_DRAIN_DELAY", Settings.drain_delay))
    drain = float(values.get("KICKOFF_DRAIN_SECONDS", Settings.drain_seconds))
    assert before + delay >= 5  # until readiness is known everywhere
    assert before + delay + drain + 5 < grace  # 5: what serve.server gives uvicorn on top


@SERVING
def test_an_update_leaves_no_gap(name: str) -> None:
    spec = workload(name)["spec"]
    assert spec["strategy"]["rollingUpdate"] == {"maxSurge": 1, "maxUnavailable": 0}
    assert spec["minReadySeconds"] > 0
    assert spec.get("replicas") == (1 if name == "serve-cpu" else None if name == "serve + all" else 2)
    budget = one(name, "PodDisruptionBudget")["spec"]
    assert budget["maxUnavailable"] == 1 and "minAvailable" not in budget


@SERVING
def test_the_servers_options_exist(name: str) -> None:
    known = {option.envvar for option in get_command(serve_app).params} | {KEY}
    assert len(known) > 10
    if "vllm" in name:
        assert container(name)["command"] == ["vllm", "serve", "$(KICKOFF_MODEL)"]
        assert "--revision=$(KICKOFF_REVISION)" in container(name)["args"]
    else:
        assert container(name)["command"] == ["python", "-m", "serve"] and "args" not in container(name)
        assert environment(name)["KICKOFF_HOST"] == "0.0.0.0"
    assert {variable for variable in environment(name) if variable.startswith("KICKOFF_")} <= known
    (port,) = container(name)["ports"]
    assert port["containerPort"] == Settings.port
    # the Service is called kickoff: its links would be KICKOFF_PORT=tcp://...
    assert one(name, "Service")["metadata"]["name"] == "kickoff"
    assert pod(name)["enableServiceLinks"] is False


def test_the_model_is_two_lines_in_one_place() -> None:
    lines = [line for file in K8S.rglob("*.yaml") for line in file.read_text().splitlines()]
    for variable, value in (("KICKOFF_MODEL", r"[\w.-]+/[\w.-]+"), ("KICKOFF_REVISION", r"[0-9a-f]{40}( #.*)?")):
        (line,) = [line for line in lines if f"{variable}=" in line]
        assert re.fullmatch(rf" *- {variable}={value}", line)
    assert len({yaml.safe_dump(of_kind(name, "ConfigMap")) for name in SERVE}) == 1


@SERVING
def test_the_network_is_closed(name: str) -> None:
    spec = one(name, "NetworkPolicy")["spec"]
    assert spec["policyTypes"] == ["Ingress", "Egress"]
    (inward,) = spec["ingress"]
    assert inward["from"] and inward["ports"] == [{"port": "http"}]
    names, https = spec["egress"]
    assert {port["port"] for port in names["ports"]} == {53} and names["to"]
    assert https["ports"] == [{"port": 443}]
    world = {block["ipBlock"]["cidr"]: block["ipBlock"]["except"] for block in https["to"]}
    assert {"10.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.168.0.0/16"} <= set(world["0.0.0.0/0"])


@pytest.mark.parametrize("name", ["serve + all", "serve-vllm + key"])
def test_the_key_component_requires_the_key(name: str) -> None:
    key = next(entry for entry in container(name)["env"] if entry["name"] == KEY)["valueFrom"]["secretKeyRef"]
    assert key == {"name": "kickoff-serve", "key": KEY, "optional": False}
    (endpoint,) = one(name, "ServiceMonitor")["spec"]["endpoints"]
    assert endpoint["authorization"]["credentials"] == {"name": key["name"], "key": key["key"]}


def test_the_monitor_and_the_autoscaler_see_the_server() -> None:
    from prometheus_client import generate_latest

    from serve.http import metrics

    name = "serve + all"
    service, monitor = one(name, "Service"), one(name, "ServiceMonitor")["spec"]
    assert monitor["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
    (endpoint,) = monitor["endpoints"]
    assert endpoint["port"] in {port["name"] for port in service["spec"]["ports"]}
    assert endpoint["path"] in {route.path for route in router.routes}
    scaled = one(name, "ScaledObject")["spec"]
    assert scaled["scaleTargetRef"]["name"] == workload(name)["metadata"]["name"]
    assert "replicas" not in workload(name)["spec"]
    (trigger,) = scaled["triggers"]
    query = re.fullmatch(r'sum\((\w+)\{job="(.*)",namespace="(.*)"\}\)', trigger["metadata"]["query"])
    metric, job, namespace = query.groups()
    assert job == service["metadata"]["name"]  # what Prometheus calls a ServiceMonitor's targets
    assert f"kubectl create namespace {namespace}\n" in (ROOT / "docs" / "kubernetes.md").read_text()
    assert trigger["metadata"]["ignoreNullValues"] == "false"  # or no figure would count as no request
    assert scaled["fallback"]["behavior"] == "currentReplicasIfHigher"  # or six busy replicas would become two
    assert scaled["fallback"]["replicas"] >= scaled["minReplicaCount"]
    assert f"# TYPE {metric} gauge" in generate_latest(metrics.REGISTRY).decode()
    assert 0 < float(trigger["metadata"]["threshold"]) < Settings.max_waiting
    behaviour = scaled["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]
    assert behaviour["scaleDown"]["stabilizationWindowSeconds"] >= 300
