"""Writes docs/config.md from the config's schema, and the table of docs/serving.md from the server's settings.

`make docs` runs it, and a test says when the pages are out of date. It knows the schema's models and the command line's
options. It does not know what is done with them.
"""

import json
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic.fields import FieldInfo
from typer.main import get_command

from job.config.schema import Config, DecodingSection, SourceSection
from serve.__main__ import KEY, app

PAGES = Path(__file__).parent
BEGIN = "<!-- made by docs/generate.py from the server's settings -->\n"
END = "<!-- end -->\n"
WHAT = {
    "dataset": "Where the rows come from. [Data](data.md#what-you-can-load) has examples.",
    "clean": "What is repaired, masked or rejected. See [clean](data.md#clean).",
    "dedupe": "Which of the rows that repeat each other stay. See [dedupe](data.md#dedupe).",
    "split": "Which rows are tested. See [split](data.md#split).",
    "model": "The base model, and how long rows and answers may be. See [training](training.md).",
    "train": "The training. See [training](training.md#what-to-set).",
    "retriever": "What only a [retriever](retrievers.md) has.",
    "evaluate": "What is measured, and the gate. See [evaluation](evaluation.md).",
    "publish": "Where the model goes. See [publishing](publishing.md).",
}
"""A line on each section."""
HEAD = """<!-- made by docs/generate.py from the config's schema; edit that, not this page -->
# Config

One YAML file describes a run, and every key has a default. The file is checked whole before anything is downloaded:
all errors come at once, each with file:line:column, the value found, what was expected, and the key that was probably
meant; the exit code is then 2.

- Numbers are YAML 1.2, so `1e-4` is a number. A duplicate or unknown key is an error.
- Override keys on the command line as `section.key=value`: `python -m job run mine.yaml train.epochs=2`.
- `run.yaml` in the run folder has every default filled in, the commits of base and data that were used, and what a
  search found for `auto`. It runs again to the same model.
- `python -m job schema` prints the JSON Schema ([for your editor](quickstart.md#all-commands)).
"""
TABLE = "| key | type | default | what it is |\n|---|---|---|---|"


def pages() -> dict[str, str]:
    """What config.md and serving.md have to be, by their names."""
    serving = (PAGES / "serving.md").read_text(encoding="utf-8")
    before, _, rest = serving.partition(BEGIN)
    return {"config.md": _config(), "serving.md": before + BEGIN + _settings() + END + rest.partition(END)[2]}


def _settings() -> str:
    """The table of the server's options and variables of the environment."""
    rows = ["| setting | environment | default | what it is |", "|---|---|---|---|"]
    for option in get_command(app).params:
        name = "MODEL" if option.param_type_name == "argument" else f"--{(option.name or '').replace('_', '-')}"
        default = getattr(option.default, "value", option.default)
        shown = "" if name == "MODEL" else "not set" if default is None else default
        rows.append(f"| `{name}` | `{option.envvar}` | {shown} | {getattr(option, 'help', '')} |")
    key = "Key that clients must send, as `Authorization: Bearer`, `X-API-Key` or a browser's password"
    rows.append(f"| | `{KEY}` | not set | {key}; health checks need none. |")
    return "\n".join(["", *rows, "", ""])


def _config() -> str:
    """The page of the config: a table for each section, the keys on top, and those of a source."""
    sections, top = [], []
    for name, field in Config.model_fields.items():
        keys = getattr(field.annotation, "model_fields", None)
        if keys is None:
            top.append(_row(name, field))
        else:
            rows = [_row(f"{name}.{key}", inner) for key, inner in keys.items()]
            sections.append("\n".join([f"## {name}", "", WHAT[name], "", TABLE, *rows]))
    sources = [_row(key, field) for key, field in SourceSection.model_fields.items()]
    of_sources = "\n".join(["### Keys of a source", "", "Each entry of `dataset.sources` has", "", TABLE, *sources])
    sections.insert(1, of_sources)
    sections.append("\n".join(["## On top", "", TABLE, *top]))
    return HEAD + "\n" + "\n\n".join(sections) + "\n"


def _row(key: str, field: FieldInfo) -> str:
    default = json.dumps(field.default, ensure_ascii=False)
    shown = "not set" if default == "null" else f"`{default}`"
    return f"| `{key}` | {_type(field.annotation)} | {shown} | {field.description} |"


def _type(annotation: Any) -> str:
    """The type as a reader of YAML says it."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _type(arguments[0])
    if origin is Literal:
        return ", ".join(f"`{value}`" for value in arguments)
    if origin in (Union, UnionType):
        return " or ".join(_type(part) for part in arguments if part is not NoneType)
    if origin in (list, tuple):
        return f"list of {_type(arguments[0])}s"
    names = {
        str: "text",
        int: "whole number",
        float: "number",
        bool: "true or false",
        SourceSection: "source",
        DecodingSection: "settings",
    }
    return names[annotation]


if __name__ == "__main__":
    for name, text in pages().items():
        (PAGES / name).write_text(text, encoding="utf-8")
