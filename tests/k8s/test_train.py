"""The manifests that train: their command, their exit codes, their nodes and their volume."""

import re
from pathlib import Path

import pytest
import yaml
from checkout import ROOT
from manifests import (
    NAMES,
    TRAIN,
    WITH,
    Object,
    config_map,
    container,
    environment,
    job_spec,
    of_kind,
    one,
    pod,
    workload,
)
from typer.main import get_command

from job.__main__ import app as job_app
from job.config.schema import Config
from job.errors import Exit

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
