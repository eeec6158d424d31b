"""The run folder: names its files, and decides which of them a later call may reuse.

    run.yaml        the config with all defaults and resolved revisions
    asked.json      the config as requested, the local data files it named, and the revisions they resolved to
    data.json, rejected.jsonl, encoded/     the prepared data
    base/           the base model, in published form       checkpoints/, tensorboard/             while training
    model/          the tuned model, then the complete published repository     training.json
    search.json     what a search for settings has tried and found      search/     while it searches
    lock.json       the process that works in the folder    ground.json   the retriever that base/ is grounded in
    measured.json   what an interrupted evaluation had measured     check.html  of `check`: the report of the data
    metrics.json    both models' metrics and the gate       answers.json        report.html        published.json

The module knows when files are out of date. It does not know what a stage does.
"""

import logging
import shutil
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from job.config import read as configs
from job.config.schema import Config, ModelSection
from job.errors import ConfigError, DataError
from job.run import changes, disk, durable, fact_files, generation, lock
from job.run.changes import Change, Files
from job.run.facts import BaseFacts, DataFacts, Resolved, RunRequest, TrainingFacts
from job.run.pins import carry_commits, pin, unpin
from job.run.retriever_facts import GroundFacts
from job.run.search_facts import SearchFacts

_OF_BASE = ("model.base", "model.gguf_file", "model.revision")
_REMOVE = "remove it, and it is created again"
_RESTORE = "restore it, or choose another output"
_OTHER_VERSION = "choose another output, or finish that run with the version that started it"
Record = TypeVar("Record")
log = logging.getLogger(__name__)


class RunFolder:
    """The folder of one run: its facts, its models, and what it was called with before."""

    def __init__(self, config: Config) -> None:
        self.path = Path(config.output)
        self.config = config

    def __truediv__(self, name: str) -> Path:
        return self.path / name

    def lock(self) -> AbstractContextManager[None]:
        """Keep every other job out of the folder until the end of the block or of this process.

        Raises:
            ConfigError: The folder is not writable.
            KickoffError: Another job works in it.
        """
        disk.require_writable(self.path)
        return lock.hold(self / "lock.json")

    def open(self, files: Files) -> None:
        """Start the run in this folder, or resume from what it holds.

        Args:
            files: {config key: {path: SHA-256}} of the local data files.

        Raises:
            ConfigError: The folder holds trained work of another config, or a damaged file.
            DataError: It holds trained work of other data.
        """
        self.discard("preparing")  # left by a run that was killed
        for kind in fact_files.FILES:
            self.read(kind)  # refuse a damaged file before anything is changed
        self._phases()
        config = self.config.model_dump(mode="json")
        before = self._previous_request()
        config = config if before is None else self._reconcile(before, config, files)
        resolved = before.resolved if before is not None and self.has_trained_work() else Resolved()
        self.write(RunRequest(config, {key: dict(named) for key, named in files.items()}, resolved, fact_files.VERSION))
        self.pin()

    def pinned_config(self) -> Config:
        """Return the config with the revisions that are resolved and the settings that are found so far."""
        return self._pin(self.config, self._resolved())

    def pin(self) -> None:
        """Write the revisions that are resolved so far to run.yaml and asked.json."""
        config = self.pinned_config()
        base = self.read(BaseFacts)
        fetched = base.weights if base is not None else None
        weights = fetched if fetched is not None else self._resolved().base_weights
        self.write(replace(self.require(RunRequest), resolved=Resolved(config.model_dump(mode="json"), weights)))
        durable.write(self / "run.yaml", configs.dump(config))

    def _pin(self, config: Config, resolved: Resolved) -> Config:
        if resolved.config is not None:
            config = carry_commits(config, Config.model_validate(resolved.config))
        return pin(config, self.read(BaseFacts), self.read(DataFacts), self.read(GroundFacts), self.read(SearchFacts))

    def preparation_config(self) -> Config:
        """Return the config to prepare base and data with: pinned if trained work depends on the same revisions."""
        return self.pinned_config() if self.has_trained_work() else self.config

    def trained_base_weights(self) -> str | None:
        """Return the hash of the base's weights that training started from; None if unknown or nothing is trained."""
        return self._resolved().base_weights if self.has_trained_work() else None

    def _resolved(self) -> Resolved:
        """Return what is resolved so far, even if base or data must be prepared again."""
        request = self.read(RunRequest)
        return request.resolved if request is not None else Resolved()

    def is_prepared(self) -> bool:
        """Return whether the folder holds the base model and encoded rows."""
        needed = ["encoded"] + (["base/grounding.json"] if self.config.model.ground is not None else [])
        return self.read(DataFacts) is not None and self.has_base() and all((self / name).exists() for name in needed)

    def has_base(self) -> bool:
        """Return whether the folder holds the base model."""
        return (self / fact_files.FILES[BaseFacts]).exists()

    def is_trained(self) -> bool:
        """Return whether the folder holds the complete tuned model."""
        return (self / "model").exists()

    def has_trained_work(self) -> bool:
        """Return whether the folder holds the tuned model or a complete checkpoint."""
        return self.is_trained() or bool(self._checkpoints())

    def _checkpoints(self) -> list[Path]:
        """Return the complete checkpoints; an interrupted one is named step-....partial."""
        folders = (self / "checkpoints").glob("step-" + "[0-9]" * 8)
        return sorted(path for path in folders if (path / "complete.json").exists())

    def finished_request(self) -> RunRequest | None:
        """Return the request whose model is trained; None before the training is finished."""
        return self.read(RunRequest) if self.is_trained() else None

    def read(self, kind: type[Record]) -> Record | None:
        """Read the facts of one kind; None if there are none.

        Raises:
            ConfigError: Their file is damaged, or another version of Kickoff wrote it.
        """
        with _add_remedy(_RESTORE if kind is TrainingFacts else _REMOVE):
            return fact_files.read(self.path, kind)

    def require(self, kind: type[Record]) -> Record:
        """Read the facts of one kind that an earlier stage has written.

        Raises:
            ConfigError: There are none, or their file is damaged.
        """
        facts = self.read(kind)
        if facts is None:
            raise ConfigError(f"output: {self / fact_files.FILES[kind]} is gone; run the same command again")
        return facts

    def write(self, record: object) -> None:
        """Write facts to their file, atomically."""
        fact_files.write(self.path, record)

    @contextmanager
    def phase(self, name: str, what: str, rank: int = 0) -> Iterator[None]:
        """Log what a phase does, and record its duration for the report; only process 0 does so.

        Args:
            name: The phase's name, such as "train".
            what: What it does, in plain words.
            rank: The rank of this process.
        """
        started = time.monotonic()
        if rank == 0:
            log.info(f"{name}: {what}")
        yield
        if rank == 0:
            seconds = self._phases()
            fact_files.write_phases(self.path, {**seconds, name: round(time.monotonic() - started, 2)})

    def _phases(self) -> dict[str, float]:
        with _add_remedy(_REMOVE):
            return fact_files.read_phases(self.path)

    def discard(self, *names: str) -> None:
        """Remove files or folders of the run, if they exist."""
        for path in map(self.path.joinpath, names):
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)

    def _previous_request(self) -> RunRequest | None:
        """Return the request that the folder was started with, with all defaults; None for a new folder.

        Raises:
            ConfigError: Another version of Kickoff wrote it with unknown keys, and trained work depends on it.
        """
        request = self.read(RunRequest)
        path = self / ("run.yaml" if request is None else "asked.json")
        try:
            if request is not None:
                config = Config.model_validate(request.config)
            elif path.exists():
                config = configs.load(path)
            else:
                return None
        except (ConfigError, ValidationError) as error:
            problem = " ".join(str(error).split())
            if self.has_trained_work():
                raise ConfigError(
                    f"output: {self.path} holds a run from another version of Kickoff: {path} cannot be read here "
                    f"({problem}); {_OTHER_VERSION}"
                ) from None
            log.info(f"run: {path} is from another version, and nothing is trained yet: preparing again")
            self.discard("data.json", "encoded", "base", "ground.json")
            return None
        values = config.model_dump(mode="json")
        if request is None:
            # only run.yaml is left, which may hold commits in place of the branches that were requested
            requested = unpin(values, self.config.model_dump(mode="json"))
            return RunRequest(requested, {}, Resolved(values), fact_files.VERSION)
        resolved = request.resolved if request.resolved != Resolved() else self._resolved_in_run_yaml()
        return replace(request, config=values, resolved=resolved)

    def _resolved_in_run_yaml(self) -> Resolved:
        """Return what is resolved, for a folder whose asked.json does not record it yet."""
        try:
            return Resolved(configs.load(self / "run.yaml").model_dump(mode="json"))
        except ConfigError:
            return Resolved()

    def _reconcile(self, before: RunRequest, config: dict[str, Any], files: Files) -> dict[str, Any]:
        """Refuse changes that would alter trained work; else discard what is out of date, and update the rest.

        Returns:
            The config to record as requested.
        """
        old = Config.model_validate(before.config)
        data, resolved = self.read(DataFacts), self._pin(old, before.resolved).model_dump(mode="json")
        same = changes.same_files(before.files, files)
        conflicts = changes.find_conflicts(before.config, config, resolved, same, self.is_trained())
        prepared = data.sources if data is not None else []
        changed = changes.changed_files(before.files, files) or changes.changed_sources(prepared, files)
        if self.has_trained_work():
            self._refuse(conflicts, changed)
        else:
            keys = [change.key for change in conflicts if changes.alters_preparation(change.key)]
            if keys or changed:
                self.discard("data.json", "encoded")
            if any(key.startswith(("model.", "retriever.")) for key in keys):
                self.discard("base", "ground.json")
            if conflicts or changed or changes.searches_anew(before.config, config, resolved):
                self.discard("search", "search.json")
        if changes.generation(before.config) != changes.generation(config):
            self.set_generation(self.pinned_config().model)
        return changes.keep_requested(before.config, config, resolved)

    def set_generation(self, section: ModelSection) -> None:
        """Set longest answer and decoding in both models' generation config; older metrics are then out of date."""
        base, tokens = self.read(BaseFacts), section.max_new_tokens
        if base is not None and base.context is not None and tokens >= base.context:
            raise ConfigError(
                f"model.max_new_tokens: found {tokens}, and {section.base} reads at most {base.context} "
                "tokens, question and answer together; lower it"
            )
        for name in ("base", "model"):
            with _add_remedy(_RESTORE):
                generation.write_settings(section, self / name)

    def _refuse(self, conflicts: list[Change], changed: list[str]) -> None:
        if conflicts:
            shown, remedy = "; ".join(map(str, conflicts)), self._remedy(conflicts)
            raise ConfigError(f"output: {self.path} holds a run with another config: {shown}; {remedy}")
        if changed:
            raise DataError(
                f"output: {self.path} holds a run on other data: {', '.join(changed)} changed; {self._remedy([])}"
            )

    def _remedy(self, conflicts: list[Change]) -> str:
        checkpoints = self._checkpoints() if self.config.model.kind == "generator" else []  # no base of a retriever
        weights = self / "model" if self.is_trained() else next(reversed(checkpoints), None)
        if weights is None or any(change.key in _OF_BASE for change in conflicts):
            return f"choose another output, or remove {self.path} to start over"
        unset = [f" model.{key}=null" for key in ("revision", "gguf_file") if getattr(self.config.model, key)]
        return (
            "choose another output to start over, or continue from its weights as a new run: "
            f"model.base={weights}{''.join(unset)} output=ANOTHER"
        )


@contextmanager
def _add_remedy(remedy: str) -> Iterator[None]:
    """Add to the error about an unreadable file what to do about it."""
    try:
        yield
    except fact_files.OtherVersion as error:
        raise ConfigError(f"output: {error}; {_OTHER_VERSION}") from None
    except fact_files.Damaged as error:
        raise ConfigError(f"output: {error}; {remedy}") from None
