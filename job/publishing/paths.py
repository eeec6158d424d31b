"""Paths: what of a local path may be published. Its last name; the folders above it tell users and machines.

It knows the keys of the config that hold paths, and opens no file.
"""

from pathlib import PurePosixPath, PureWindowsPath
from typing import Any

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
    ("publish", "folder"),
)
"""Those that hold local paths; `sources` is a list. Some may hold a Hub id, which reads as a relative path."""
_SHORTENED = (
    "# A path that led out of the working folder stands here as its last name only: put the file or folder of that\n"
    "# name there, or name its place, and this config runs again.\n"
)


def name(path: str) -> str:
    """The last name of a path, in any system's way of writing it."""
    return PureWindowsPath(path).name or "local"


def run_yaml(config: Config) -> str:
    """The config as `run.yaml` holds it in the published repository.

    Relative paths stay, for they say where a file lies beside the others; of an absolute one, of one from the home
    folder, or of one that climbs (..) its last name stays. The run folder keeps its own run.yaml whole.
    """
    values = config.model_dump(mode="json")
    before = yaml_file.write(values)
    for path in KEYS:
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
