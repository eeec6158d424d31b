"""Folder: publishes a model to a local folder, in place of an older one.

The new folder is written under a temporary name, verified, and renamed. The module knows which folder may be replaced;
it does not know the Hub.
"""

import hashlib
import shutil
from contextlib import suppress
from pathlib import Path

from job.config.schema import PublishSection
from job.errors import ConfigError, PublishError
from job.publishing import contract
from job.publishing.contract import MARK
from job.publishing.verify import Samples
from job.run import durable
from job.run.messages import join_names


def publish_to_folder(section: PublishSection, model: Path, samples: Samples) -> str:
    """Publish a model to publish.folder, and verify it.

    Args:
        section: The config's publish section.
        model: The complete model folder, with its mark.
        samples: Questions, and the answers of the model in the run folder.

    Returns:
        The folder as the config names it.

    Raises:
        ConfigError: By now the folder holds something that Kickoff did not write.
        PublishError: The folder cannot be written, or the published copy gives other answers.
    """
    named = str(section.folder)
    # a link stays; the folder that it leads to is replaced
    target = Path(named).resolve()
    partial, old = _sibling(target, f"{_digest(model)}.partial"), _sibling(target, "old")
    is_created = False
    try:
        _recover(old, target)
        for leftover in (partial, old):
            _remove_ours(leftover)
        partial.mkdir(parents=True)
        is_created = True
        _copy(model, partial)
        samples.require_same(named, partial)
        require_replaceable(section)  # the folder may have changed since the start of the run
        if target.exists():
            if not (target / MARK).exists() and not contract.foreign_files_in(target):
                contract.write_mark(target)  # an older version wrote none; the renamed folder must be recognized
            target.rename(old)
        durable.replace(partial, target)
    except OSError as error:
        raise PublishError(f"publish.folder: {named} cannot be written: {error}") from None
    finally:
        with suppress(OSError):  # what cannot be removed now, the next run removes or names
            if is_created and partial.exists():
                _remove(partial)
        _recover(old, target)
    with suppress(OSError):
        if old.exists():
            _remove(old)
    return named


def require_replaceable(section: PublishSection) -> None:
    """Raise ConfigError if the folder holds files that Kickoff did not write, unless publish.replace allows it."""
    target = Path(str(section.folder))
    if target.exists() and not target.is_dir():
        raise ConfigError(f"publish.folder: {target} is a file; expected a folder, or a path that does not exist yet")
    if section.replace or not target.exists():
        return
    try:
        foreign = contract.foreign_files_in(target)
    except OSError as error:
        raise ConfigError(f"publish.folder: {target} cannot be read: {error.strerror}; choose another folder") from None
    if foreign:
        raise ConfigError(
            f"publish.folder: expected no folder, an empty one, or a model that Kickoff published; {target} holds "
            f"{join_names(foreign, most=3)}, which it did not write; choose another folder, or set publish.replace to "
            "true to delete everything there"
        )


def require_free_sibling(target: Path) -> None:
    """Raise ConfigError if the temporary name of the older model is taken by something that Kickoff did not write."""
    try:
        _require_ours(_sibling(target, "old"))
    except OSError as error:
        raise ConfigError(f"publish.folder: {error}") from None


def _sibling(target: Path, what: str) -> Path:
    return target.with_name(f".{target.name}.kickoff-{what}")


def _digest(model: Path) -> str:
    """Return a hash of the model for its temporary name, so that two jobs do not write to the same one."""
    return hashlib.sha256((model / MARK).read_bytes()).hexdigest()[:12]


def _recover(old: Path, target: Path) -> None:
    """Restore the older model if a run ended between the two renames."""
    if old.exists() and not target.exists():
        old.rename(target)


def _remove_ours(leftover: Path) -> None:
    """Remove what a killed run left; refuse to remove anything else of that name."""
    _require_ours(leftover)
    if leftover.exists():
        _remove(leftover)


def _remove(folder: Path) -> None:
    """Remove a folder, its mark last, so that the next run recognizes what a kill left of it."""
    for path in folder.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        elif path.name != MARK:
            path.unlink()
    shutil.rmtree(folder)


def _require_ours(leftover: Path) -> None:
    if not leftover.exists() and not leftover.is_symlink():
        return
    if leftover.is_symlink() or not (_has_mark(leftover) or _is_just_begun(leftover)):
        raise OSError(f"{leftover} is in the way, and Kickoff did not write it; move it away")


def _has_mark(folder: Path) -> bool:
    mark = folder / MARK
    return mark.is_file() and contract.read_mark(mark.read_bytes()) is not None


def _is_just_begun(folder: Path) -> bool:
    """Return whether a folder holds nothing, or the beginning of a mark: a kill came before the mark was complete."""
    if not folder.is_dir() or any(path.name != MARK for path in folder.iterdir()):
        return False
    mark = folder / MARK
    return not mark.exists() or not mark.read_bytes()


def _copy(model: Path, partial: Path) -> None:
    """Copy the mark first, so that an interrupted copy can be recognized as Kickoff's."""
    shutil.copy2(model / MARK, partial / MARK)
    shutil.copytree(model, partial, dirs_exist_ok=True)
