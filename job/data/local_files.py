"""Local data: the files that a config names, with their SHA-256, by which a run sees that its data has changed.

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


def local_data(section: DatasetSection, finished: RunRequest | None = None) -> dict[str, dict[str, str]]:
    """The local files behind each key of the config that names some, with their SHA-256.

    Args:
        finished: what a run was called with whose model is trained. It needs its data no more: a file that the config
            names as it did then, and that is gone, counts as it was.
    """
    return {key: _read(names, _then(key, names, finished)) for key, names in _named(section).items()}


def paths(section: DatasetSection) -> list[Path]:
    """The local files that the config names, whether they are there or not.

    Raises:
        DataError: a glob that finds none.
    """
    return [path for names in _named(section).values() for path in files.paths(names)]


def there(section: DatasetSection) -> list[Path]:
    """The local files that the config names; a glob that finds none is told when they are read."""
    found = []
    for names in _named(section).values():
        for name in [names] if isinstance(names, str) else names:
            try:
                found += files.paths(name)
            except DataError:
                continue
    return found


def _named(section: DatasetSection) -> dict[str, Files]:
    named = {"dataset.file": section.file, "dataset.test": section.test}
    named |= {f"dataset.sources.{number}.file": source.file for number, source in enumerate(section.sources)}
    return {key: names for key, names in named.items() if names is not None}


def _then(key: str, names: Files, finished: RunRequest | None) -> Mapping[str, str]:
    """The files of then behind the key; none if it named others."""
    if finished is None:
        return {}
    before: Any = finished.config
    for part in key.split("."):
        if isinstance(before, list):
            before = before[int(part)] if int(part) < len(before) else None
        else:
            before = (before or {}).get(part)
    return finished.files.get(key, {}) if before == names else {}


def _read(names: Files, then: Mapping[str, str]) -> dict[str, str]:
    gone = {path: digest for path, digest in then.items() if not Path(path).exists()}
    if not gone:
        return {str(path): files.fingerprint(path) for path in files.paths(names)}
    log.info(f"data: {', '.join(gone)} is no longer there; the model is trained, so it counts as unchanged")
    now: list[Path] = []
    for name in [names] if isinstance(names, str) else names:
        try:
            now += files.paths(name)
        except DataError:  # a glob, and all that it found is gone
            continue
    found = {str(path): files.fingerprint(path) for path in now if str(path) not in gone}
    # in the order of then, for the order of the files decides which of two equal questions stays
    return {path: gone.get(path) or found[path] for path in then if path in gone or path in found} | found
