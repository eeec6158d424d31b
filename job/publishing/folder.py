"""Folder: a model published to a folder on this machine, in place of an older one.

The new folder is written aside, asked, and then renamed. It knows which folder may be replaced; it does not know the
Hub.
"""

import hashlib
import shutil
from pathlib import Path

from job.config.schema import PublishSection
from job.errors import ConfigError, PublishError
from job.publishing import contract
from job.publishing.contract import MARK
from job.publishing.verify import Samples
from job.run import durable
from job.run.messages import listed


def to_folder(section: PublishSection, model: Path, samples: Samples) -> str:
    """Publish; the folder as the config names it.

    Raises:
        ConfigError: by now the folder holds something that is not ours.
        PublishError: it cannot be written, or answers otherwise than the model in the run folder.
    """
    named = str(section.folder)
    # a link keeps its place: what it leads to is replaced
    target = Path(named).resolve()
    partial, old = _aside(target, f"{_digest(model)}.partial"), _aside(target, "old")
    made = False
    try:
        _recover(old, target)
        for leftover in (partial, old):
            _remove_ours(leftover)
        partial.mkdir(parents=True)
        made = True
        _copy(model, partial)
        samples.require_same(named, partial)
        require_replaceable(section)  # the folder may have changed since the start of the run
        if target.exists():
            if not (target / MARK).exists() and not contract.foreign(target):
                contract.put_mark(target)  # of a version before the mark; aside it has to be known as ours
            target.rename(old)
        durable.place(partial, target)
    except OSError as error:
        raise PublishError(f"publish.folder: {named} cannot be written: {error}") from None
    finally:
        if made:
            shutil.rmtree(partial, ignore_errors=True)
        _recover(old, target)
    shutil.rmtree(old, ignore_errors=True)
    return named


def require_replaceable(section: PublishSection) -> None:
    """Raise ConfigError if the folder holds anything but an earlier model of ours, unless publish.replace allows it."""
    target = Path(str(section.folder))
    if target.exists() and not target.is_dir():
        raise ConfigError(f"publish.folder: {target} is a file; expected a folder, or a path where nothing is yet")
    if section.replace or not target.exists():
        return
    try:
        found = contract.foreign(target)
    except OSError as error:
        raise ConfigError(f"publish.folder: {target} cannot be read: {error.strerror}; choose another folder") from None
    if found:
        raise ConfigError(
            f"publish.folder: expected no folder, an empty one, or a model that Kickoff published; {target} holds "
            f"{listed(found, most=3)}, which it did not write; choose another folder, or set publish.replace to true "
            "to delete all that is there"
        )


def require_free_aside(target: Path) -> None:
    """Raise ConfigError if something that is not ours has the name under which the older model waits."""
    try:
        _require_ours(_aside(target, "old"))
    except OSError as error:
        raise ConfigError(f"publish.folder: {error}") from None


def _aside(target: Path, what: str) -> Path:
    return target.with_name(f".{target.name}.kickoff-{what}")


def _digest(model: Path) -> str:
    """Different models are written aside under different names, so that two jobs do not meet there."""
    return hashlib.sha256((model / MARK).read_bytes()).hexdigest()[:12]


def _recover(old: Path, target: Path) -> None:
    """Bring back the older model where a run ended between the two renames."""
    if old.exists() and not target.exists():
        old.rename(target)


def _remove_ours(leftover: Path) -> None:
    """Remove what a run that was killed left; refuse to remove anything else of that name."""
    if leftover.exists() or leftover.is_symlink():
        _require_ours(leftover)
        shutil.rmtree(leftover)


def _require_ours(leftover: Path) -> None:
    mark = leftover / MARK
    if not leftover.exists() and not leftover.is_symlink():
        return
    if leftover.is_symlink() or contract.read_mark(mark.read_bytes() if mark.is_file() else None) is None:
        raise OSError(f"{leftover} is in the way, and Kickoff did not write it; move it away")


def _copy(model: Path, partial: Path) -> None:
    """The mark goes first: a copy that is broken off can then be told from a folder of somebody else."""
    shutil.copy2(model / MARK, partial / MARK)
    shutil.copytree(model, partial, dirs_exist_ok=True)
