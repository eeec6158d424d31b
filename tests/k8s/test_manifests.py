"""All manifests of k8s/: every kustomization renders, is valid and safe, and names only what is there."""

import re

import kubernetes_validate
import pytest
import yaml
from checkout import ROOT
from manifests import (
    K8S,
    NAMES,
    SERVE,
    TRAIN,
    WITH,
    container,
    environment,
    job_spec,
    objects,
    of_kind,
    pod,
    template,
    walk,
    workload,
)

VERSIONS = ("1.31", "1.37")
IN_OVERLAYS = {"cpu", "restart", "torchrun"}  # components that overlays of k8s/ list themselves
PODS = pytest.mark.parametrize("name", NAMES)
NOT_VALIDATED = {
    # kinds of operators, whose schemas kubernetes-validate does not have
    ("jobset.x-k8s.io/v1alpha2", "JobSet"),
    ("trainer.kubeflow.org/v1alpha1", "TrainingRuntime"),
    ("trainer.kubeflow.org/v1alpha1", "TrainJob"),
    ("keda.sh/v1alpha1", "ScaledObject"),
    ("monitoring.coreos.com/v1", "ServiceMonitor"),
}


def bytes_of(quantity: str) -> int:
    number, unit = re.fullmatch(r"(\d+)(Mi|Gi)", quantity).groups()
    return int(number) * {"Mi": 2**20, "Gi": 2**30}[unit]


def test_every_kustomization_is_looked_at_here() -> None:
    kinds = {}
    for file in K8S.rglob("kustomization.yaml"):
        kinds[str(file.parent.relative_to(K8S))] = yaml.safe_load(file.read_text())["kind"]
    overlays = {name for name, kind in kinds.items() if kind == "Kustomization"}
    components = {name.removeprefix("components/") for name, kind in kinds.items() if kind == "Component"}
    assert overlays == {*TRAIN, *SERVE}
    assert components == {part for _, parts in WITH.values() for part in parts} | IN_OVERLAYS
    assert len(kinds) == len(overlays) + len(components)
    for name in NAMES:
        assert len(objects(name)) >= 3, name


@pytest.mark.parametrize("version", VERSIONS)
@PODS
def test_valid(name: str, version: str) -> None:
    unknown = set()
    for item in objects(name):
        try:
            kubernetes_validate.validate(item, version, strict=True)
        except kubernetes_validate.SchemaNotFoundError:
            unknown.add((item["apiVersion"], item["kind"]))
    assert unknown <= NOT_VALIDATED
    if workload(name)["kind"] in ("JobSet", "TrainingRuntime"):  # at least the Job inside
        inner = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "inner"}, "spec": job_spec(name)}
        kubernetes_validate.validate(inner, version, strict=True)


def test_every_exempted_kind_is_used() -> None:
    assert {(item["apiVersion"], item["kind"]) for name in NAMES for item in objects(name)} >= NOT_VALIDATED


@PODS
def test_images_have_a_version(name: str) -> None:
    image = container(name)["image"]
    ours = re.search(r'^version = "(.*)"', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)[1]
    expected = f"kickoff-{name.split()[0].split('-')[0].replace('train', 'job')}:{ours}"
    assert image == expected or re.fullmatch(r"vllm/vllm-openai:v\d+\.\d+\.\d+", image) and "vllm" in name
    assert "latest" not in image
    assert "initContainers" not in pod(name)


@PODS
def test_pod_security_restricted(name: str) -> None:
    assert pod(name)["securityContext"] == {
        "runAsNonRoot": True,
        "runAsUser": 10001,
        "runAsGroup": 10001,
        "fsGroup": 10001,
        "fsGroupChangePolicy": "OnRootMismatch",
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    assert container(name)["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert pod(name)["automountServiceAccountToken"] is False
    assert not {"hostNetwork", "hostPID", "hostIPC"} & set(pod(name))
    assert {next(iter(set(volume) - {"name"})) for volume in pod(name)["volumes"]} <= {
        "configMap", "emptyDir", "persistentVolumeClaim",
    }  # fmt: skip


@PODS
def test_limits(name: str) -> None:
    limits = container(name)["resources"]["limits"]
    gpu = set() if name.endswith("-cpu") else {"nvidia.com/gpu"}
    assert set(limits) == {"cpu", "memory", "ephemeral-storage"} | gpu
    tolerated = [toleration["key"] for toleration in pod(name).get("tolerations", [])]
    assert tolerated == list(gpu)
    sizes = {True: 0, False: 0}
    for volume in pod(name)["volumes"]:
        if "emptyDir" in volume:
            sizes[volume["emptyDir"].get("medium") == "Memory"] += bytes_of(volume["emptyDir"]["sizeLimit"])
    assert sizes[True] * 2 <= bytes_of(limits["memory"])
    assert sizes[False] < bytes_of(limits["ephemeral-storage"])
    (threads,) = [entry for entry in container(name)["env"] if entry["name"] == "OMP_NUM_THREADS"]
    assert threads["valueFrom"] == {"resourceFieldRef": {"resource": "limits.cpu"}}


@PODS
def test_what_is_written_to_is_mounted(name: str) -> None:
    mounts = {mount["mountPath"]: mount["name"] for mount in container(name)["volumeMounts"]}
    assert sorted(mounts.values()) == sorted(volume["name"] for volume in pod(name)["volumes"])
    assert "/tmp" in mounts
    for variable in ("HOME", "HF_HOME"):
        path = environment(name)[variable]
        assert any(f"{path}/".startswith(f"{mount}/") for mount in mounts), (variable, path)
    if name not in ("serve", "serve-cpu", "serve + all"):
        shm = next(volume for volume in pod(name)["volumes"] if volume["name"] == mounts["/dev/shm"])
        assert shm["emptyDir"]["medium"] == "Memory"


@PODS
def test_references_resolve(name: str) -> None:
    """Names that kustomize changes (a hash, another volume) are changed wherever they are used."""
    there = {(item["kind"], item["metadata"]["name"]) for item in objects(name)}
    used = {("ConfigMap", source["configMapRef"]["name"]) for source in container(name).get("envFrom", [])}
    for volume in pod(name)["volumes"]:
        if "configMap" in volume:
            used.add(("ConfigMap", volume["configMap"]["name"]))
        if "persistentVolumeClaim" in volume:
            used.add(("PersistentVolumeClaim", volume["persistentVolumeClaim"]["claimName"]))
    assert used and used <= there
    assert {kind for kind, _ in there - used} & {"ConfigMap", "PersistentVolumeClaim"} == set()
    secrets = {
        node["secretKeyRef"]["name"] for node in walk(pod(name)) if isinstance(node, dict) and "secretKeyRef" in node
    }
    assert secrets == {"kickoff-train" if name.startswith("train") else "kickoff-serve"}


@PODS
def test_labels_and_ports_are_those_of_the_pods(name: str) -> None:
    labels = template(name)["metadata"]["labels"].items()
    selectors = [item["spec"]["selector"] for item in of_kind(name, "Service")]
    selectors += [
        item["spec"]["selector"]["matchLabels"] for item in of_kind(name, "PodDisruptionBudget", "Deployment")
    ]
    selectors += [item["spec"]["podSelector"]["matchLabels"] for item in of_kind(name, "NetworkPolicy")]
    selectors += [spread["labelSelector"]["matchLabels"] for spread in pod(name).get("topologySpreadConstraints", [])]
    assert len(selectors) == (5 if name.startswith("serve") else len(of_kind(name, "Service")))
    assert all(selector.items() <= labels for selector in selectors)
    ports = {port["name"]: port["containerPort"] for port in container(name).get("ports", [])}
    for item in of_kind(name, "Service"):
        assert all(port["targetPort"] in ports for port in item["spec"].get("ports", []))


@PODS
def test_variables_are_defined_before_they_are_used(name: str) -> None:
    """Kubernetes leaves $(NAME) as it is where NAME comes later, or never."""
    seen = set(environment(name)) - {entry["name"] for entry in container(name)["env"]}
    for entry in container(name)["env"]:
        assert set(re.findall(r"\$\((\w+)\)", entry.get("value", ""))) <= seen, entry
        seen.add(entry["name"])
    for argument in container(name)["command"] + container(name).get("args", []):
        assert set(re.findall(r"\$\((\w+)\)", argument)) <= seen, argument
