"""SIGTERM and SIGINT in every phase of a run from the Hub to the Hub: 75 within seconds, and the next run goes on."""

import json
import re
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fault_points import at_once, chance, note, result
from fork_server import ForkServer, Run
from hub_clients import TOKEN
from hub_repos import FIRST_FILES
from hub_server import HubServer
from tiny import ROWS

from job.errors import Exit

PHASES = ("load", "base", "encode", "train", "evaluate", "report", "publish")
ALLOWED_SECONDS = 5.0


@pytest.fixture(scope="module")
def slow_hub(tiny_base: Path) -> Iterator[HubServer]:
    """A Hub with the data and the base model, slow enough that a signal can meet a download or an upload."""
    with HubServer() as server:
        server.users = {TOKEN: {"name": "ada", "role": "write"}}
        lines = "".join(json.dumps(row) + "\n" for row in ROWS)
        server.add_repo("datasets", "ada/rows", {"train.jsonl": lines.encode()})
        server.add_repo("models", "ada/tiny", tiny_base)
        server.delay = 0.02
        yield server


class Case:
    def __init__(self, jobs: ForkServer, server: HubServer, folder: Path) -> None:
        self.jobs, self.server, self.folder = jobs, server, folder
        self.repo = f"ada/{folder.name}"
        folder.mkdir()
        (folder / "config.yaml").write_text(
            "dataset: {name: ada/rows}\n"
            "model: {base: ada/tiny, max_length: 64, max_new_tokens: 12}\n"
            "train: {epochs: 20, learning_rate: 3e-3, precision: fp32, logging_steps: 1, save_steps: 30}\n"
            f"evaluate: {{batch_size: 2}}\npublish: {{repo: {self.repo}}}\noutput: {folder}/run\n"
        )

    def start(self) -> Run:
        environment = {
            "HF_ENDPOINT": self.server.url,
            "HF_TOKEN": TOKEN,
            "HF_HUB_CACHE": f"{self.folder}/hub",
            "HF_DATASETS_CACHE": f"{self.folder}/datasets",
        }
        return self.jobs.start(self.folder, "run", f"{self.folder}/config.yaml", environment=environment)

    def commits(self) -> list[dict[str, bytes]]:
        if ("models", self.repo) not in self.server.repos:
            return []
        return [dict(commit.files) for commit in self.server.commits("models", self.repo)]

    def wrong(self) -> bool:
        """Whether `main` ever held anything but nothing or the whole model."""
        right = FIRST_FILES | {path.name: path.read_bytes() for path in (self.folder / "run/model").glob("*")}
        return any(files not in (FIRST_FILES, right) for files in self.commits())


@pytest.fixture(scope="module")
def unbroken(jobs: ForkServer, slow_hub: HubServer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    case = Case(jobs, slow_hub, tmp_path_factory.mktemp("signals") / "unbroken")
    run = case.start()
    assert run.wait() == Exit.DONE, run.text()
    return case.folder / "run"


def interrupted(case: Case, unbroken: Path, phase: str, share: float, numbers: list[int]) -> dict[str, Any]:
    """One point: signals at a share of a phase's time, then the same command to the end."""
    seconds = json.loads((unbroken / "phases.json").read_text())[phase]
    run = case.start()
    reached = run.until(lambda: f"begin {phase}" in run.phases())
    time.sleep(share * seconds)
    sent = time.monotonic()
    met = [run.signal(number) for number in numbers][0]
    code = run.wait()
    stopped = time.monotonic() - sent
    in_train = "begin train" in run.phases() and "end train" not in run.phases()
    steps = [path.name for path in (case.folder / "run/checkpoints").glob("step-" + "[0-9]" * 8)]
    at = re.search(r"stopped at step (\d+)", run.last_line())
    kept = not at or f"step-{int(at[1]):08d}" in steps or len(numbers) > 1
    wrong = case.wrong()
    last = case.start()
    done = last.wait() == Exit.DONE
    commits = case.commits()
    # the signal may come when all is done, and then it changes nothing
    ended = code == Exit.INTERRUPTED or (not met and code == Exit.DONE) or run.last_line().startswith("done: ")
    return {
        "point": f"{'+'.join(signal.Signals(number).name for number in numbers)} at {share:.2f} of {phase}",
        "phase": phase,
        "survived": reached and ended and done and kept and (stopped < ALLOWED_SECONDS or " s ago" in run.text()),
        "equal": done and result(case.folder / "run") == result(unbroken),
        "wrong": wrong or case.wrong() or len(commits) != 2,
        "interrupted": code == Exit.INTERRUPTED,
        "seconds": stopped,
        "in train": in_train,
        "said": [code, run.text()[-1500:], last.code, last.text()[-500:]],
    }


def interrupt_all(
    jobs: ForkServer, server: HubServer, unbroken: Path, tmp_path: Path, points: list[tuple[str, list[int]]], title: str
) -> list[dict[str, Any]]:
    def one(numbered: tuple[int, tuple[str, list[int]]]) -> dict[str, Any]:
        number, (phase, signals) = numbered
        case = Case(jobs, server, tmp_path / f"{title.split(',')[0].replace(' ', '-')}-{number}")
        return interrupted(case, unbroken, phase, chance(title, number).uniform(0, 0.9), signals)

    found = at_once(one, list(enumerate(points)))
    note(title, found)
    assert not [one for one in found if not (one["survived"] and one["equal"]) or one["wrong"]]
    return found


@pytest.mark.faults
@pytest.mark.timeout(1800)
def test_a_signal_in_every_phase(jobs: ForkServer, slow_hub: HubServer, unbroken: Path, tmp_path: Path) -> None:
    numbers = [[signal.SIGTERM], [signal.SIGTERM], [signal.SIGTERM], [signal.SIGTERM], [signal.SIGINT]]
    points = [(phase, signals) for phase in PHASES for signals in (numbers if phase != "train" else numbers * 2)]
    found = interrupt_all(jobs, slow_hub, unbroken, tmp_path, points, "SIGTERM or SIGINT, every phase")
    assert {one["phase"] for one in found if one["interrupted"]} == set(PHASES)


@pytest.mark.faults
@pytest.mark.timeout(1800)
def test_two_signals(jobs: ForkServer, slow_hub: HubServer, unbroken: Path, tmp_path: Path) -> None:
    points = [(phase, [signal.SIGTERM, signal.SIGTERM]) for phase in PHASES]
    interrupt_all(jobs, slow_hub, unbroken, tmp_path, points, "two signals, every phase")


def test_some_signals(jobs: ForkServer, slow_hub: HubServer, unbroken: Path, tmp_path: Path) -> None:
    points = [("load", [signal.SIGTERM]), ("evaluate", [signal.SIGINT]), ("publish", [signal.SIGTERM])]
    interrupt_all(jobs, slow_hub, unbroken, tmp_path, points, "signals, sample")


def test_a_download_that_hangs_is_abandoned_with_a_message(
    jobs: ForkServer, slow_hub: HubServer, tmp_path: Path
) -> None:
    """A signal alone does not end it: the client waits in other threads."""
    case = Case(jobs, slow_hub, tmp_path / "hangs")
    slow_hub.fail("GET", r"tiny/resolve/.*safetensors", hang=True)
    run = case.start()
    run.until(lambda: any("tiny/resolve" in path and "safetensors" in path for _, path, _ in slow_hub.requests[-5:]))
    time.sleep(0.3)
    sent = time.monotonic()
    run.signal(signal.SIGTERM)
    assert run.wait() == Exit.INTERRUPTED
    assert time.monotonic() - sent < ALLOWED_SECONDS + 1
    slow_hub.clear_faults()
