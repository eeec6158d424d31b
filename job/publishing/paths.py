"""Paths: shortens local paths for publishing to their last name, since the folders above name users and machines.

It knows the keys of the config that hold paths. It opens no file.
"""

from pathlib import PurePosixPath, PureWindowsPath
from typing import Any

from job.config import read as configs
from job.config import yaml_file
from job.config.schema import Config
from job.config.yaml_file import KeyPath

KEYS: tuple[KeyPath, ...] = (
    ("output",),
    ("dataset", "file"),
    ("dataset", "test"),
    ("dataset", "sources", "file"),
    ("dedupe", "semantic_model"),
    ("model", "base"),
    ("model", "ground"),
    ("retriever", "unknown"),
    ("publish", "folder"),
)
"""Keys that hold local paths; `sources` is a list. Some may hold a Hub id, which looks like a relative path."""
_SHORTENED = (
    "# Paths outside the working folder are shortened to their last name. To run this config again, put the file or\n"
    "# folder of that name into the working folder, or write its path.\n"
)


def name(path: str) -> str:
    """Return the last name of a POSIX or Windows path."""
    return PureWindowsPath(path).name or "local"


def run_yaml(config: Config) -> str:
    """Return the published `run.yaml`: the config without paths that lead out of the working folder.

    Relative paths stay, since they say where a file lies beside the others. Absolute paths, paths from the home folder
    and paths with `..` are reduced to their last name. The run folder's own run.yaml keeps them all.
    """
    values = configs.values(config)
    before = yaml_file.write(values)
    for path in KEYS:
        if path[0] in values:
            _shorten(values, path)
    after = yaml_file.write(values)
    return after if after == before else _SHORTENED + after


def _shorten(values: dict[str, Any], path: KeyPath) -> None:
    key, *rest = path
    value = values[str(key)]
    if rest:
        for inner in value if isinstance(value, list) else [value]:
            _shorten(inner, tuple(rest))
    elif isinstance(value, list):
        values[str(key)] = [_short(item) for item in value]
    elif value is not None:
        values[str(key)] = _short(value)


def _short(path: str) -> str:
    windows = PureWindowsPath(path)
    leads_out = PurePosixPath(path).is_absolute() or windows.is_absolute() or path.startswith("~")
    return name(path) if leads_out or ".." in windows.parts else path
