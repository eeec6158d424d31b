"""docker, and containers of the job and the server."""

import subprocess
import uuid
from pathlib import Path

from checkout import ROOT

JOB, SERVE = "kickoff-job:0.1.0", "kickoff-serve:0.1.0"
USER = 10001
HARDENED = ("--read-only", "--cap-drop", "all", "--security-opt", "no-new-privileges", "--tmpfs", "/tmp:exec")
Done = subprocess.CompletedProcess[str]


def docker(*arguments: object, timeout: float = 300) -> Done:
    return subprocess.run(["docker", *map(str, arguments)], cwd=ROOT, capture_output=True, text=True, timeout=timeout)


def succeeds(*arguments: object) -> str:
    done = docker(*arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.strip()


def mounts(work: Path, base: Path) -> list[str]:
    """The demo's config and data, with a base model that fits into a test."""
    return [
        *("-v", f"{ROOT}/examples:/work/examples:ro"),
        *("-v", f"{base}:/work/.cache/base:ro"),
        *("-v", f"{work}/runs:/work/runs"),
    ]


DEMO = (
    *("run", "examples/soccer/offline.yaml", "model.base=.cache/base", "model.gguf_file=null"),
    *("train.epochs=1", "evaluate.generate_rows=8", "evaluate.gate=off"),
)


def run(*arguments: object) -> Done:
    """To the end and away. Not with --rm, with which podman's docker loses the exit code."""
    name = f"kickoff-test-{uuid.uuid4().hex}"
    try:
        return docker("run", "--name", name, *arguments)
    finally:
        docker("rm", "-f", name)


def job(work: Path, base: Path, *arguments: object, options: tuple[object, ...] = ()) -> Done:
    return run("--network", "none", *HARDENED, *options, *mounts(work, base), JOB, *arguments)
