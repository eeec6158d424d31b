"""The run folder: what a run leaves behind, and which of it a later call may build upon.

    run.yaml        the config with every default          data.json, rejected.jsonl, encoded/    the prepared data
    base/           the base model, in published form       checkpoints/, tensorboard/             while training
    model/          the tuned model, then the whole published repository        training.json
    lock.json       the process at work here
    measured.json   what an evaluation that was broken off had finished
    metrics.json    both models' metrics and the gate       answers.json        report.html        published.json
    check.html      of `check`: the report of the data

It knows names of files and when they are out of date. It does not know what a stage does.
"""

import errno
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from job import config as configs
from job import durable, lock
from job.config import Config
from job.errors import ConfigError, DataError

# what decides the weights; evaluate and publish may change between calls and are then done again
_DECIDING = ("dataset", "clean", "dedupe", "split", "model", "train", "seed")


class RunFolder:
    def __init__(self, config: Config) -> None:
        self.path = Path(config.output)
        self.config = config

    def __truediv__(self, name: str) -> Path:
        return self.path / name

    def held(self) -> AbstractContextManager[None]:
        """Keep every other job out of the folder, until the end of the block or of this process.

        Raises:
            ConfigError: it cannot be written.
            KickoffError: another job is at work there.
        """
        self.require_writable()
        return lock.hold(self / "lock.json")

    def require_writable(self) -> None:
        """Make the folder; raise ConfigError if it cannot be written."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.path):
                pass
        except OSError as error:
            if error.errno == errno.ENOSPC:
                raise
            raise ConfigError(
                f"output: expected a folder that can be written, found {self.path}: {error.strerror}; mount it "
                f"writable for user {os.geteuid()}, or choose another output"
            ) from None

    def claim(self, fingerprints: dict[str, str]) -> None:
        """Take the folder for this run, or go on with what it holds.

        Args:
            fingerprints: SHA-256 of each local data file.

        Raises:
            ConfigError, DataError: it holds trained work of another config, or of other data.
        """
        self.discard("preparing")  # a run that was killed leaves it behind
        before = self._config_before()
        differing = list(_differing(before, self.config.model_dump(mode="json"))) if before else []
        known = self._files_before()
        changed = sorted({file for file, _ in known ^ set(fingerprints.items())}) if known else []
        if self.has_trained():
            self._refuse(differing, changed)
        elif differing or changed:
            for name in ("data.json", "base", "encoded"):
                self.discard(name)
        durable.write(self / "run.yaml", configs.dump(self.config))

    def has_trained(self) -> bool:
        """Whether it holds work that is worth keeping: a model, or checkpoints on the way to it."""
        return (self / "model").exists() or any((self / "checkpoints").glob("step-*"))

    def read(self, name: str) -> Any:
        """A JSON file of the folder; None if it is not there."""
        path = self / name
        return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None

    def write(self, name: str, value: Any) -> None:
        """Write a JSON file, all of it or nothing."""
        durable.write(self / name, durable.as_json(value))

    def discard(self, name: str) -> None:
        path = self / name
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)

    def _config_before(self) -> dict[str, Any] | None:
        path = self / "run.yaml"
        return configs.load(path).model_dump(mode="json") if path.exists() else None

    def _files_before(self) -> set[tuple[str, str]]:
        """Local files that were prepared, with their hashes."""
        sources = (self.read("data.json") or {}).get("sources", [])
        return {(source["source"], source["sha256"]) for source in sources if "sha256" in source}

    def _refuse(self, differing: list[str], changed: list[str]) -> None:
        remedy = f"choose another output, or remove {self.path} to start anew"
        if differing:
            raise ConfigError(f"output: {self.path} holds a run of another config: {'; '.join(differing)}; {remedy}")
        if changed:
            raise DataError(f"output: {self.path} holds a run of other data: {', '.join(changed)} changed; {remedy}")


def _differing(before: dict[str, Any], now: dict[str, Any]) -> Iterator[str]:
    for section in _DECIDING:
        if not isinstance(now[section], dict):
            if before[section] != now[section]:
                yield f"{section} was {before[section]!r} and is {now[section]!r}"
            continue
        for key, value in now[section].items():
            if before[section].get(key) != value:
                yield f"{section}.{key} was {before[section].get(key)!r} and is {value!r}"
