"""A training that is broken off and goes on in another place."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from checkout import ROOT
from datasets import DatasetDict
from fork_server import ForkServer
from served import free_port
from training import SECTION, Stopping

from job.config.schema import TrainSection
from job.errors import Interrupted
from job.run import checkpoint, fact_files
from job.run.facts import TrainingFacts
from job.run.machine import Machine
from job.training.next_token import NextToken
from job.training.objective import Load
from job.training.step import Learner
from job.training.train import train

EIGHT = SECTION.model_copy(update={"batch_size": 8, "learning_rate": 1e-4, "save_steps": 1000})
"""30 rows: 4 steps an epoch, 8 in all."""


def broken_off(
    section: TrainSection, rows: DatasetDict, base: Path, run: Path, machine: Machine, step: int, seed: int = 1,
    load: Load = NextToken,
) -> None:  # fmt: skip
    unchanged = Learner.step
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Learner, "step", Stopping([step]).step)
        with pytest.raises(Interrupted, match=f"stopped at step {step} "):
            train(section, seed, rows, base, run, machine, load)
    assert Learner.step is unchanged


def close(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor], tolerance: float) -> bool:
    return all(torch.allclose(left[name], right[name], atol=tolerance) for name in left)


def labels(rows: DatasetDict) -> int:
    return sum(label != -100 for row in rows["train"]["labels"] for label in row)


def state_of(run: Path) -> tuple[Path, dict[str, Any]]:
    (folder,) = (run / "checkpoints").glob("step-*")
    return folder, json.loads((folder / "state.json").read_text())


def rewrite(run: Path, **changed: Any) -> None:
    """Change the state of the only checkpoint, as another version or another place would have written it."""
    folder, state = state_of(run)
    tensors = torch.load(folder / "tensors.pt")
    state = {key: value for key, value in {**state, **changed}.items() if value is not None}
    checkpoint.save(run / "checkpoints", state["step"], tensors, state, 1)


class Place:
    """Trainings in real processes, one or several, over one run folder."""

    def __init__(self, folder: Path, rows: DatasetDict, base: Path, jobs: ForkServer) -> None:
        self.folder, self.base, self.jobs = folder, base, jobs
        rows.save_to_disk(folder / "encoded")

    def train(self, processes: int, section: dict[str, Any], run: Any = "run", **faults: Any) -> tuple[int, str]:
        """Exit code and output; as under torchrun, the other processes are ended when one fails."""
        order = self._order(section, run, **faults)
        group = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "WORLD_SIZE": str(processes)}
        running = [
            self.jobs.start(
                self.folder, str(order), program="train",
                environment={**group, "RANK": str(rank), "LOCAL_RANK": str(rank)} if processes > 1 else {},
            )
            for rank in range(processes)
        ]  # fmt: skip
        while not all(process.ended.wait(0.01) for process in running):
            if any(process.code for process in running):
                for process in running:
                    process.signal(signal.SIGTERM)
                break
        codes = [process.wait() for process in running]
        return max(codes) or min(codes), "".join(process.text() for process in running)

    def launch(self, processes: int, section: dict[str, Any], **faults: Any) -> tuple[int, str]:
        """The same under the real launcher."""
        script = [str(ROOT / "tests/support/train_process.py"), str(self._order(section, "run", **faults))]
        ended = subprocess.run(
            [sys.executable, "-m", "job.launch", "--standalone", f"--nproc-per-node={processes}", *script],
            cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
            capture_output=True, text=True, timeout=110,
        )  # fmt: skip
        return ended.returncode, ended.stdout + ended.stderr

    def _order(
        self, section: dict[str, Any], run: Any, stop: int = 0, full: int = -1,
        short: tuple[int, str] | None = None, retriever: dict[str, Any] | None = None,
    ) -> Path:  # fmt: skip
        order = self.folder / "order.json"
        runs = str(self.folder / run) if isinstance(run, str) else [str(self.folder / name) for name in run]
        fixed = {"epochs": 2, "learning_rate": 1e-4, "precision": "fp32", "logging_steps": 1, "save_steps": 1000}
        order.write_text(
            json.dumps(
                {
                    "section": {**fixed, **section},
                    "rows": str(self.folder / "encoded"),
                    "base": str(self.base),
                    "run": runs,
                    "stop": stop,
                    "full": full,
                    "short": short,
                    "retriever": retriever,
                }
            )
        )
        return order

    def facts(self, run: str = "run") -> TrainingFacts:
        return fact_files.load(self.folder / run / "training.json", TrainingFacts)
