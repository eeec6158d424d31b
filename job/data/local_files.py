"""Local files: the files that a config names, with the SHA-256 by which a run notices that its data has changed.

It knows paths and bytes. It does not know what is in the files.
"""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from job.config.schema import DatasetSection, Files
from job.data import files
from job.errors import DataError
from job.run.facts import RunRequest

log = logging.getLogger(__name__)


def local_data(section: DatasetSection, earlier: RunRequest | None = None) -> dict[str, dict[str, str]]:
    """Hash the local files that a config names.

    Args:
        section: the config's section dataset.
        earlier: the call of an earlier run whose model is trained. Such a run no longer needs its data: a file that is
            gone keeps its earlier hash, if the config still names it in the same way.

    Returns:
        For each key of the config that names files, such as "dataset.file": SHA-256 by path.

    Raises:
        DataError: a file cannot be read, or a glob matches nothing.
    """
    return {
        key: _hash_files(names, _earlier_hashes(key, names, earlier)) for key, names in _files_by_key(section).items()
    }


def paths(section: DatasetSection) -> list[Path]:
    """List the local files that the config names, whether they exist or not.

    Raises:
        DataError: a glob matches nothing.
    """
    return [path for names in _files_by_key(section).values() for path in files.paths(names)]


def existing_paths(section: DatasetSection) -> list[Path]:
    """List the local files that the config names, without an error for a glob that matches nothing."""
    existing = []
    for names in _files_by_key(section).values():
        for name in [names] if isinstance(names, str) else names:
            try:
                existing += files.paths(name)
            except DataError:
                continue
    return existing


def _files_by_key(section: DatasetSection) -> dict[str, Files]:
    named = {"dataset.file": section.file, "dataset.test": section.test}
    named |= {f"dataset.sources.{number}.file": source.file for number, source in enumerate(section.sources)}
    return {key: names for key, names in named.items() if names is not None}


def _earlier_hashes(key: str, names: Files, earlier: RunRequest | None) -> Mapping[str, str]:
    """SHA-256 by path of the key's files in the earlier run; empty if the key named other files."""
    if earlier is None:
        return {}
    before: Any = earlier.config
    for part in key.split("."):
        if isinstance(before, list):
            before = before[int(part)] if int(part) < len(before) else None
        else:
            before = (before or {}).get(part)
    return earlier.files.get(key, {}) if before == names else {}


def _hash_files(names: Files, earlier_hashes: Mapping[str, str]) -> dict[str, str]:
    removed = {path: digest for path, digest in earlier_hashes.items() if not Path(path).exists()}
    if not removed:
        return {str(path): files.fingerprint(path) for path in files.paths(names)}
    log.info(f"data: {', '.join(removed)} is no longer there; the model is trained, so it counts as unchanged")
    remaining: list[Path] = []
    for name in [names] if isinstance(names, str) else names:
        try:
            remaining += files.paths(name)
        except DataError:  # a glob whose files are all gone
            continue
    present = {str(path): files.fingerprint(path) for path in remaining if str(path) not in removed}
    # in the earlier order: the order of the files decides which of two equal questions stays
    return {
        path: removed.get(path) or present[path] for path in earlier_hashes if path in removed or path in present
    } | present
