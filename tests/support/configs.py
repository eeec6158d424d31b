"""Configs of runs that take a second or two."""

import json
from collections.abc import Callable
from pathlib import Path

from tiny import ROWS

from job.config.schema import Config

MakeConfig = Callable[..., Config]


def write_config(folder: Path, base: Path | str, extra: str = "") -> Path:
    (folder / "rows.json").write_text(json.dumps(ROWS))
    path = folder / "config.yaml"
    path.write_text(
        f"dataset: {{file: {folder}/rows.json}}\n"
        f"model: {{base: {base}, max_length: 64, max_new_tokens: 12}}\n"
        f"output: {folder}/run\n{extra or 'train: {epochs: 2, learning_rate: 3e-3, precision: fp32}'}\n"
    )
    return path
