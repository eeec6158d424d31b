"""What is in the two images: nothing that they do not need, where they come from, and no token."""

import json
import subprocess
from pathlib import Path

import pytest
from checkout import ROOT
from containers import DEMO, JOB, SERVE, USER, mounts, succeeds
from hub_clients import TOKEN

pytestmark = [pytest.mark.image, pytest.mark.timeout(1200)]


@pytest.mark.parametrize(
    ("image", "absent"), [(JOB, ["litserve", "fastapi", "pip", "pytest"]), (SERVE, ["datasets", "tensorboard", "pip"])]
)
def test_nothing_is_in_an_image_that_it_does_not_need(image: str, absent: list[str]) -> None:
    code = f"import importlib.util, os; print([n for n in {absent} if importlib.util.find_spec(n)], os.getuid())"
    assert succeeds("run", "--rm", "--entrypoint", "python", image, "-c", code) == f"[] {USER}"
    look = "command -v gcc cc g++ make git; find / -xdev -name '*.pyc' -newer /app -path '/app/*'; true"
    assert succeeds("run", "--rm", "--entrypoint", "sh", image, "-c", look) == ""


@pytest.mark.parametrize("image", [JOB, SERVE])
def test_an_image_tells_where_it_comes_from(image: str) -> None:
    labels = json.loads(succeeds("image", "inspect", image))[0]["Config"]["Labels"]
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True).stdout.strip()
    assert labels["org.opencontainers.image.revision"] == head
    assert labels["org.opencontainers.image.version"] == "0.1.0"


def test_a_token_stays_nowhere(work: Path, tiny_base: Path, container: list[str]) -> None:
    id = succeeds("create", "--network", "none", "-e", f"HF_TOKEN={TOKEN}", *mounts(work, tiny_base), JOB, *DEMO)
    container.append(id)
    succeeds("start", "-a", id)
    exported = subprocess.Popen(["docker", "export", id], stdout=subprocess.PIPE)
    found = subprocess.run(["grep", "-c", TOKEN], stdin=exported.stdout, capture_output=True, text=True)
    assert (exported.wait(), found.stdout.strip()) == (0, "0")
    assert subprocess.run(["grep", "-rlc", TOKEN, str(work)], capture_output=True, text=True).stdout == ""
    for image in (JOB, SERVE):
        assert TOKEN not in succeeds("history", "--no-trunc", image) + succeeds("image", "inspect", image)


def test_a_change_of_code_changes_the_last_layer_only(tmp_path: Path) -> None:
    for name in ("Dockerfile", ".dockerignore", "pyproject.toml", "constraints.txt", "job", "serve"):
        subprocess.run(["cp", "-r", str(ROOT / name), str(tmp_path)], check=True)
    with (tmp_path / "job" / "pipeline.py").open("a") as file:
        file.write("# changed\n")
    succeeds("build", "-q", "--target", "job", "-t", "kickoff-job:changed", tmp_path)
    layers = [
        json.loads(succeeds("image", "inspect", name))[0]["RootFS"]["Layers"] for name in (JOB, "kickoff-job:changed")
    ]
    succeeds("rmi", "kickoff-job:changed")
    differing = [index for index, (old, new) in enumerate(zip(*layers, strict=True)) if old != new]
    assert differing == [len(layers[0]) - 1]
