"""The run folder: what a run leaves behind, and which of it a later call may build upon.

    run.yaml        the config with every default, and with the revisions that were resolved
    asked.json      the config as it was asked for, the local data files it named, and what both were resolved to
    data.json, rejected.jsonl, encoded/     the prepared data
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
import logging
import os
import shutil
import tempfile
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from job.config import schema as configs
from job.config.schema import Config
from job.errors import ConfigError, DataError
from job.run import changes, durable, lock
from job.run.changes import Change, Files
from job.run.pins import kept, pinned, unpinned

_MADE_ANEW = ("asked.json", "data.json", "base/base.json", "metrics.json", "answers.json", "measured.json",
              "phases.json", "published.json")  # fmt: skip
log = logging.getLogger(__name__)


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

    def claim(self, files: Files) -> None:
        """Take the folder for this run, or go on with what it holds.

        Args:
            files: the local data files behind each key that names some, with their SHA-256.

        Raises:
            ConfigError, DataError: it holds trained work of another config, or of other data, or is damaged.
        """
        self.discard("preparing")  # a run that was killed leaves it behind
        for name in (*_MADE_ANEW, "training.json"):
            self.read(name)
        asked = self.config.model_dump(mode="json")
        before = self._before()
        if before is not None:
            asked = self._accept(before, asked, files)
        resolved = before["resolved"] if before is not None and self.has_trained() else {}
        self.write("asked.json", {"config": asked, "files": files, "resolved": resolved})
        self.pin()

    def pinned(self) -> Config:
        """The config with the revisions that were resolved so far."""
        found = self._resolved().get("config")
        config = self.config if found is None else kept(self.config, Config.model_validate(found))
        return pinned(config, self.read("base/base.json"), self.read("data.json"))

    def pin(self) -> None:
        """Write run.yaml with the revisions that were resolved so far, and keep them beside what was asked for."""
        config = self.pinned()
        weights = (self.read("base/base.json") or {}).get("weights", self._resolved().get("base_weights"))
        resolved = {"config": config.model_dump(mode="json"), "base_weights": weights}
        self.write("asked.json", {**(self.read("asked.json") or {}), "resolved": resolved})
        durable.write(self / "run.yaml", configs.dump(config))

    def to_prepare(self) -> Config:
        """The config by which base and data are made. What trained work was made of is read again as it was."""
        return self.pinned() if self.has_trained() else self.config

    def trained_from(self) -> str | None:
        """Hash of the base's weights that trained work began with; None if it is not known, or nothing is trained."""
        found: str | None = self._resolved().get("base_weights")
        return found if self.has_trained() else None

    def _resolved(self) -> dict[str, Any]:
        """What was resolved so far, even if base or data are to be made anew."""
        return dict((self.read("asked.json") or {}).get("resolved", {}))

    def has_trained(self) -> bool:
        """Whether it holds work that is worth keeping: a model, or checkpoints on the way to it."""
        return (self / "model").exists() or bool(self._checkpoints())

    def _checkpoints(self) -> list[Path]:
        """The complete ones; one that was being written when its process ended is named step-....partial."""
        found = (self / "checkpoints").glob("step-" + "[0-9]" * 8)
        return sorted(path for path in found if (path / "complete.json").exists())

    def finished(self) -> dict[str, Any] | None:
        """What a run asked for whose model is trained; None before."""
        return self.read("asked.json") if (self / "model").exists() else None

    def read(self, name: str) -> Any:
        """A JSON file of the folder; None if it is not there.

        Raises:
            ConfigError: it is damaged.
        """
        path = self / name
        if not path.exists():
            return None
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            problem = f"is damaged ({error})"
        else:
            if isinstance(found, dict):
                return found
            problem = "is damaged (it holds no JSON object)"
        remedy = "remove it, and it is made anew" if name in _MADE_ANEW else "restore it, or choose another output"
        raise ConfigError(f"output: {path} {problem}; {remedy}")

    def write(self, name: str, value: Any) -> None:
        """Write a JSON file, all of it or nothing."""
        durable.write(self / name, durable.as_json(value))

    def discard(self, name: str) -> None:
        path = self / name
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)

    def _before(self) -> dict[str, Any] | None:
        """The config that the folder was begun with, whole, and its files; None for a new folder.

        Raises:
            ConfigError: another version wrote it, in keys that are not known here, and trained work depends on it.
        """
        found = self.read("asked.json")
        path = self / ("run.yaml" if found is None else "asked.json")
        try:
            if found is not None:
                config = Config.model_validate(found["config"])
            elif path.exists():
                config = configs.load(path)
            else:
                return None
        except (ConfigError, ValidationError, KeyError) as error:
            problem = " ".join(str(error).split())
            if self.has_trained():
                raise ConfigError(
                    f"output: {self.path} holds a run of another version of Kickoff: {path} cannot be read here "
                    f"({problem}); choose another output, or finish that run with the version that began it"
                ) from None
            log.info(f"run: {path} is of another version and nothing is trained yet, so all is done anew")
            self._discard("data.json", "encoded", "base")
            return None
        values = config.model_dump(mode="json")
        if found is None:
            # its run.yaml alone is left, which may say the commits in place of what was asked for
            asked = unpinned(values, self.config.model_dump(mode="json"))
            return {"config": asked, "files": {}, "resolved": {"config": values}}
        resolved = found.get("resolved") or self._as_in_run_yaml()
        return {"config": values, "files": found.get("files", {}), "resolved": resolved}

    def _as_in_run_yaml(self) -> dict[str, Any]:
        """What was resolved, of a folder from before asked.json said so."""
        try:
            return {"config": configs.load(self / "run.yaml").model_dump(mode="json")}
        except ConfigError:
            return {}

    def _accept(self, before: dict[str, Any], asked: dict[str, Any], files: Files) -> dict[str, Any]:
        """Refuse what would alter trained work; else discard what is out of date, and bring the rest up to date.

        Returns:
            What is asked for from now on.
        """
        old: Files = before["files"]
        same = changes.same_files(old, files)
        was = Config.model_validate(before["config"])
        found = before["resolved"].get("config")
        resolved_before = was if found is None else kept(was, Config.model_validate(found))
        resolved = pinned(resolved_before, self.read("base/base.json"), self.read("data.json")).model_dump(mode="json")
        differing = changes.deciding(before["config"], asked, resolved, same, (self / "model").exists())
        changed = changes.changed_files(old, files) or self._changed_since_prepared(files)
        if self.has_trained():
            self._refuse(differing, changed)
        else:
            keys = [change.key for change in differing if not change.key.startswith("train.")]
            if keys or changed:
                self._discard("data.json", "encoded")
            if any(key.startswith("model.") for key in keys):
                self._discard("base")
        if was.model.max_new_tokens != self.config.model.max_new_tokens:
            self._set_longest_answer(self.config.model.max_new_tokens)
        wishes: dict[str, Any] = changes.with_wishes(before["config"], asked, resolved)
        return wishes

    def _changed_since_prepared(self, files: Files) -> list[str]:
        """Local files that were prepared with other bytes than they have now."""
        sources = (self.read("data.json") or {}).get("sources", [])
        known = {source["sha256"]: source["source"] for source in sources if "sha256" in source}
        now = {digest: path for named in files.values() for path, digest in named.items()}
        if not known or known.keys() == now.keys():
            return []
        return sorted({(known | now)[digest] for digest in known.keys() ^ now.keys()})

    def _set_longest_answer(self, tokens: int) -> None:
        """The models say themselves how long an answer may be; what was measured before is then out of date."""
        context = (self.read("base/base.json") or {}).get("context")
        if context is not None and tokens >= context:
            raise ConfigError(
                f"model.max_new_tokens: found {tokens}, and {self.config.model.base} reads at most {context} tokens, "
                "question and answer together; lower it"
            )
        for name in ("base/generation_config.json", "model/generation_config.json"):
            settings = self.read(name)
            if settings is not None:
                self.write(name, {**settings, "max_new_tokens": tokens})

    def _refuse(self, differing: list[Change], changed: list[str]) -> None:
        if differing:
            told = "; ".join(map(str, differing))
            raise ConfigError(f"output: {self.path} holds a run of another config: {told}; {self._ways_out(differing)}")
        if changed:
            raise DataError(
                f"output: {self.path} holds a run of other data: {', '.join(changed)} changed; {self._ways_out([])}"
            )

    def _ways_out(self, differing: list[Change]) -> str:
        if any(change.key in ("model.base", "model.gguf_file", "model.revision") for change in differing):
            return f"choose another output, or remove {self.path} to start anew"
        steps = self._checkpoints()
        weights = self / "model" if (self / "model").exists() else steps[-1] if steps else None
        if weights is None:
            return f"choose another output, or remove {self.path} to start anew"
        unset = [f" model.{key}=null" for key in ("revision", "gguf_file") if getattr(self.config.model, key)]
        return (
            "choose another output to start anew, or go on from its weights as a new run: "
            f"model.base={weights}{''.join(unset)} output=ANOTHER"
        )

    def _discard(self, *names: str) -> None:
        for name in names:
            self.discard(name)
