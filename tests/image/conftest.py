"""The two images, a folder to work in, and containers that are removed in the end."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from checkout import ROOT
from containers import USER, docker
from hub_clients import TOKEN


@pytest.fixture
def work(tmp_path: Path, tiny_base: Path) -> Path:
    """A folder with what a run needs, and `runs`, which the images' user may write."""
    (tmp_path / "runs").mkdir()
    os.chown(tmp_path / "runs", USER, USER)
    for path in (tmp_path, *tmp_path.parents[:2]):
        path.chmod(0o755)
    for path in (tiny_base, *tiny_base.parents[:2]):
        path.chmod(0o755)
    for path in tiny_base.iterdir():
        path.chmod(0o644)
    return tmp_path


@pytest.fixture
def container() -> Iterator[list[str]]:
    """Ids of containers that are removed at the end, whatever happens."""
    ids: list[str] = []
    yield ids
    for id in ids:
        docker("rm", "-f", id)


@pytest.fixture(scope="session", autouse=True)
def images() -> None:
    if docker("info").returncode:
        pytest.exit("no container engine answers to `docker info`", 1)
    # a token in the environment of the build, as on any developer's machine
    built = subprocess.run(
        ["make", "image"], cwd=ROOT, env={**os.environ, "HF_TOKEN": TOKEN}, capture_output=True, text=True
    )
    assert built.returncode == 0, built.stdout + built.stderr
