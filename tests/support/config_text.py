"""A config as text: written into a file and read, or its errors."""

from pathlib import Path

import pytest

from job.config import read as configs
from job.config.schema import Config
from job.errors import ConfigError, Exit

FILE = "dataset: {file: a.json}\n"


def written(folder: Path, text: str | bytes) -> Path:
    path = folder / "config.yaml"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def read(folder: Path, text: str | bytes, *overrides: str) -> Config:
    return configs.load(written(folder, text), list(overrides))


def errors(folder: Path, text: str | bytes, *overrides: str) -> list[str]:
    """The lines of the error, the file's path shortened to its name."""
    with pytest.raises(ConfigError) as caught:
        read(folder, text, *overrides)
    assert caught.value.exit_code is Exit.CONFIG
    return str(caught.value).replace(f"{folder}/", "").split("\n")
