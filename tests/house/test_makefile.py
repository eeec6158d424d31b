"""The Makefile with the tools of other systems: what `docker` is asked for by each engine's users, and `make help`.

A `docker` that writes down its arguments takes the place of the engine; with a real one tests/image runs the targets.
"""

import os
import re
import subprocess
from pathlib import Path

import pytest
from checkout import ROOT

from serve.settings import Settings

MAKEFILE = (ROOT / "Makefile").read_text()
ENGINES = {
    # what `docker info` prints of itself
    "docker": "Server:\n Security Options:\n  seccomp\n   Profile: builtin\n  cgroupns\n",
    "rootless docker": "Server:\n Security Options:\n  seccomp\n   Profile: builtin\n  rootless\n  cgroupns\n",
    "podman": "host:\n  security:\n    rootless: false\n    selinuxEnabled: true\n",
    "rootless podman": "host:\n  security:\n    rootless: true\n    selinuxEnabled: true\n",
    "no engine": "",
}
CALLER = "1234:1234"


def asked(folder: Path, engine: str, *arguments: str) -> list[str]:
    """What `docker run` is given by `make ARGUMENTS`."""
    tools = folder / "tools"
    tools.mkdir()
    (folder / "info").write_text(ENGINES[engine])
    (tools / "docker").write_text(
        f'#!/bin/sh\ncase $1 in\n  info) cat "{folder}/info";;\n  run) printf "%s\\n" "$@" > "{folder}/asked";;\nesac\n'
    )
    (tools / "id").write_text("#!/bin/sh\necho 1234\n")  # a person, whoever runs the tests
    for tool in tools.iterdir():
        tool.chmod(0o755)
    command = ["make", "-C", str(ROOT), f"CACHE={folder}/cache", *arguments]
    path = f"{tools}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(command, env={**os.environ, "PATH": path}, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    return (folder / "asked").read_text().splitlines()


def after(options: list[str], name: str) -> list[str]:
    return [value for option, value in zip(options, options[1:], strict=False) if option == name]


TARGETS = pytest.mark.parametrize("target", ["train", "serve-image"])


@TARGETS
@pytest.mark.parametrize("engine", ENGINES)
def test_what_a_container_writes_belongs_to_the_caller(engine: str, target: str, tmp_path: Path) -> None:
    """In a rootless engine the caller is root inside, and its own number is somebody else's."""
    (user,) = after(asked(tmp_path, engine, target), "--user")
    assert user == ("0:0" if engine.startswith("rootless") else CALLER)


@TARGETS
def test_every_mount_is_open_to_a_container_under_selinux(target: str, tmp_path: Path) -> None:
    mounts = after(asked(tmp_path, "docker", target), "-v")
    assert len(mounts) >= 2
    for mount in mounts:
        assert "z" in mount.split(":")[2].split(","), mount


@TARGETS
@pytest.mark.parametrize("gpus", ["", " ", "--gpus all"])
def test_without_gpus_none_is_given(target: str, gpus: str, tmp_path: Path) -> None:
    options = asked(tmp_path, "docker", target, f"GPUS={gpus}")
    assert ("NVIDIA_VISIBLE_DEVICES=void" in after(options, "-e")) == (not gpus.strip())
    assert ("--gpus" in options) == bool(gpus.strip())


def test_docker_stop_leaves_time_to_finish(tmp_path: Path) -> None:
    """For running requests, and the 5 s until they are cut off; for the job as long as in Kubernetes."""
    (seconds,) = after(asked(tmp_path, "docker", "serve-image"), "--stop-timeout")
    assert int(seconds) > Settings.drain_delay + Settings.drain_seconds + 5
    manifest = (ROOT / "k8s" / "train" / "job.yaml").read_text()
    (grace,) = re.findall(r"terminationGracePeriodSeconds: (\d+)", manifest)
    (tmp_path / "train").mkdir()
    assert after(asked(tmp_path / "train", "docker", "train"), "--stop-timeout") == [grace]


def test_the_images_are_stopped_by_the_signal_that_is_handled() -> None:
    assert re.findall(r"^STOPSIGNAL (.*)", (ROOT / "Dockerfile").read_text(), re.MULTILINE) == ["SIGTERM"] * 2


def test_help_lists_every_target() -> None:
    done = subprocess.run(["make", "-s", "-C", str(ROOT), "help"], capture_output=True, text=True, timeout=60)
    listed = dict(re.findall(r"^([a-z0-9-]+) +(.*)$", done.stdout, re.MULTILINE))
    phony = re.search(r"^\.PHONY:((?:.*\\\n)*.*)", MAKEFILE, re.MULTILINE)
    assert phony is not None
    assert set(listed) == set(phony[1].replace("\\\n", " ").split())
    assert len({line.index(text) for line, text in zip(done.stdout.splitlines(), listed.values(), strict=True)}) == 1


GNU_ONLY = {
    # what macOS and the BSDs lack, or do differently
    r"\bsed\b[^|]*\\[tn]": "\\t and \\n in sed",
    r"\bsed -(?:i|r|z)\b": "sed -i, -r, -z",
    r"\bgrep -[a-zA-Z]*P": "grep -P",
    r"\b(?:readlink|realpath) -": "readlink -f",
    r"\bgetent\b": "getent",
    r"\bdate -[dI]": "date -d",
    r"\bxargs -[a-zA-Z]*[rd]\b": "xargs -r",
    r"\bcp -[a-zA-Z]*[tT]\b": "cp -t",
    r"\bnproc\b": "nproc",
    r"\bstat -c": "stat -c",
    r"\bsort -[a-zA-Z]*[VR]\b": "sort -V",
    r"(?:\bmktemp --|\bseq -|(?<!-)\btimeout \d|\btac\b|\bsha256sum\b)": "coreutils",
}


@pytest.mark.parametrize("pattern", GNU_ONLY, ids=GNU_ONLY.values())
def test_no_recipe_needs_gnus_tools(pattern: str) -> None:
    assert re.findall(f".*{pattern}.*", MAKEFILE) == []
