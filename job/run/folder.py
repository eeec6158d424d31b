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
from job.config.schema import Config
from job.errors import ConfigError, DataError
from job.run import changes, disk, durable, fact_files, lock
from job.run.changes import Change, Files
from job.run.facts import Asked, BaseFacts, DataFacts, Resolved, TrainingFacts
from job.run.pins import kept, pinned, unpinned

_MADE_ANEW = "remove it, and it is made anew"
_RESTORE = "restore it, or choose another output"
_OTHER_VERSION = "choose another output, or finish that run with the version that began it"
Record = TypeVar("Record")
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
        disk.require_writable(self.path)
        return lock.hold(self / "lock.json")

    def claim(self, files: Files) -> None:
        """Take the folder for this run, or go on with what it holds.

        Args:
            files: the local data files behind each key that names some, with their SHA-256.

        Raises:
            ConfigError, DataError: it holds trained work of another config, or of other data, or is damaged.
        """
        self.discard("preparing")  # a run that was killed leaves it behind
        for kind in fact_files.FILES:
            self.read(kind)
        self._phases()
        asked = self.config.model_dump(mode="json")
        before = self._before()
        if before is not None:
            asked = self._accept(before, asked, files)
        resolved = before.resolved if before is not None and self.has_trained() else Resolved()
        self.write(Asked(asked, {key: dict(named) for key, named in files.items()}, resolved, fact_files.VERSION))
        self.pin()

    def pinned(self) -> Config:
        """The config with the revisions that were resolved so far."""
        found = self._resolved().config
        config = self.config if found is None else kept(self.config, Config.model_validate(found))
        return pinned(config, self.read(BaseFacts), self.read(DataFacts))

    def pin(self) -> None:
        """Write run.yaml with the revisions that were resolved so far, and keep them beside what was asked for."""
        config = self.pinned()
        base = self.read(BaseFacts)
        known = base.weights if base is not None else None
        weights = known if known is not None else self._resolved().base_weights
        resolved = Resolved(config.model_dump(mode="json"), weights)
        self.write(replace(self.require(Asked), resolved=resolved))
        durable.write(self / "run.yaml", configs.dump(config))

    def to_prepare(self) -> Config:
        """The config by which base and data are made. What trained work was made of is read again as it was."""
        return self.pinned() if self.has_trained() else self.config

    def trained_from(self) -> str | None:
        """Hash of the base's weights that trained work began with; None if it is not known, or nothing is trained."""
        return self._resolved().base_weights if self.has_trained() else None

    def _resolved(self) -> Resolved:
        """What was resolved so far, even if base or data are to be made anew."""
        asked = self.read(Asked)
        return asked.resolved if asked is not None else Resolved()

    def is_prepared(self) -> bool:
        """Whether it holds the base model and encoded rows."""
        return self.read(DataFacts) is not None and self.has_base() and (self / "encoded").exists()

    def has_base(self) -> bool:
        return (self / fact_files.FILES[BaseFacts]).exists()

    def is_trained(self) -> bool:
        """Whether it holds the tuned model, complete."""
        return (self / "model").exists()

    def has_trained(self) -> bool:
        """Whether it holds work that is worth keeping: a model, or checkpoints on the way to it."""
        return self.is_trained() or bool(self._checkpoints())

    def _checkpoints(self) -> list[Path]:
        """The complete ones; one that was being written when its process ended is named step-....partial."""
        found = (self / "checkpoints").glob("step-" + "[0-9]" * 8)
        return sorted(path for path in found if (path / "complete.json").exists())

    def finished(self) -> Asked | None:
        """What a run asked for whose model is trained; None before."""
        return self.read(Asked) if self.is_trained() else None

    def read(self, kind: type[Record]) -> Record | None:
        """The facts of one kind; None if they are not there.

        Raises:
            ConfigError: their file is damaged, or another version wrote it.
        """
        with _remedied(_RESTORE if kind is TrainingFacts else _MADE_ANEW):
            return fact_files.read(self.path, kind)

    def require(self, kind: type[Record]) -> Record:
        """The facts of one kind, which an earlier stage has left."""
        found = self.read(kind)
        if found is None:
            raise ConfigError(f"output: {self / fact_files.FILES[kind]} is gone; run the same command again")
        return found

    def write(self, record: object) -> None:
        fact_files.write(self.path, record)

    @contextmanager
    def phase(self, name: str, what: str, rank: int = 0) -> Iterator[None]:
        """Say what a phase does, in plain words, and note for the report how long it took; only process 0 does."""
        started = time.monotonic()
        if rank == 0:
            log.info(f"{name}: {what}")
        yield
        if rank == 0:
            seconds = self._phases()
            fact_files.write_phases(self.path, {**seconds, name: round(time.monotonic() - started, 2)})

    def _phases(self) -> dict[str, float]:
        with _remedied(_MADE_ANEW):
            return fact_files.read_phases(self.path)

    def discard(self, name: str) -> None:
        path = self / name
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)

    def _before(self) -> Asked | None:
        """The config that the folder was begun with, whole, and its files; None for a new folder.

        Raises:
            ConfigError: another version wrote it, in keys that are not known here, and trained work depends on it.
        """
        found = self.read(Asked)
        path = self / ("run.yaml" if found is None else "asked.json")
        try:
            if found is not None:
                config = Config.model_validate(found.config)
            elif path.exists():
                config = configs.load(path)
            else:
                return None
        except (ConfigError, ValidationError) as error:
            problem = " ".join(str(error).split())
            if self.has_trained():
                raise ConfigError(
                    f"output: {self.path} holds a run of another version of Kickoff: {path} cannot be read here "
                    f"({problem}); {_OTHER_VERSION}"
                ) from None
            log.info(f"run: {path} is of another version and nothing is trained yet, so all is done anew")
            self._discard("data.json", "encoded", "base")
            return None
        values = config.model_dump(mode="json")
        if found is None:
            # its run.yaml alone is left, which may say the commits in place of what was asked for
            asked = unpinned(values, self.config.model_dump(mode="json"))
            return Asked(asked, {}, Resolved(values), fact_files.VERSION)
        resolved = found.resolved if found.resolved != Resolved() else self._as_in_run_yaml()
        return replace(found, config=values, resolved=resolved)

    def _as_in_run_yaml(self) -> Resolved:
        """What was resolved, of a folder from before asked.json said so."""
        try:
            return Resolved(configs.load(self / "run.yaml").model_dump(mode="json"))
        except ConfigError:
            return Resolved()

    def _accept(self, before: Asked, asked: dict[str, Any], files: Files) -> dict[str, Any]:
        """Refuse what would alter trained work; else discard what is out of date, and bring the rest up to date.

        Returns:
            What is asked for from now on.
        """
        old: Files = before.files
        same = changes.same_files(old, files)
        was = Config.model_validate(before.config)
        found = before.resolved.config
        resolved_before = was if found is None else kept(was, Config.model_validate(found))
        resolved = pinned(resolved_before, self.read(BaseFacts), self.read(DataFacts)).model_dump(mode="json")
        differing = changes.deciding(before.config, asked, resolved, same, self.is_trained())
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
        wishes: dict[str, Any] = changes.with_wishes(before.config, asked, resolved)
        return wishes

    def _changed_since_prepared(self, files: Files) -> list[str]:
        """Local files that were prepared with other bytes than they have now."""
        data = self.read(DataFacts)
        sources = data.sources if data is not None else []
        known = {source.sha256: source.source for source in sources if source.sha256 is not None}
        now = {digest: path for named in files.values() for path, digest in named.items()}
        if not known or known.keys() == now.keys():
            return []
        return sorted({(known | now)[digest] for digest in known.keys() ^ now.keys()})

    def _set_longest_answer(self, tokens: int) -> None:
        """The models say themselves how long an answer may be; what was measured before is then out of date."""
        base = self.read(BaseFacts)
        context = base.context if base is not None else None
        if context is not None and tokens >= context:
            raise ConfigError(
                f"model.max_new_tokens: found {tokens}, and {self.config.model.base} reads at most {context} tokens, "
                "question and answer together; lower it"
            )
        for name in ("base/generation_config.json", "model/generation_config.json"):
            path = self / name
            if path.exists():
                with _remedied(_RESTORE):
                    settings = fact_files.read_json(path)
                durable.write(path, durable.as_json({**settings, "max_new_tokens": tokens}))

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
        weights = self / "model" if self.is_trained() else steps[-1] if steps else None
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


@contextmanager
def _remedied(remedy: str) -> Iterator[None]:
    """Say what to do about a file that cannot be read."""
    try:
        yield
    except fact_files.OtherVersion as error:
        raise ConfigError(f"output: {error}; {_OTHER_VERSION}") from None
    except fact_files.Damaged as error:
        raise ConfigError(f"output: {error}; {remedy}") from None
