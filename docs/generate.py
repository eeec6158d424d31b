"""Writes docs/config.md from the config's schema: `python docs/generate.py`; a test says when it is out of date.

It knows the schema's models. It does not know what the stages do with the keys.
"""

import json
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic.fields import FieldInfo

from job.config.schema import Config, SourceSection

PAGE = Path(__file__).with_name("config.md")
WHAT = {
    "dataset": "Where the rows come from. [Data](data.md#what-you-can-load) has examples.",
    "clean": "What is repaired, masked or rejected. See [clean](data.md#clean).",
    "dedupe": "Which of the rows that repeat each other stay. See [dedupe](data.md#dedupe).",
    "split": "Which rows are tested. See [split](data.md#split).",
    "model": "The base model, and how long rows and answers may be. See [training](training.md).",
    "train": "The training. See [training](training.md#what-to-set).",
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
- `run.yaml` in the run folder has every default filled in and the commits of base and data that were used. It runs
  again to the same model.
- `python -m job schema` prints the JSON Schema ([for your editor](quickstart.md#all-commands)).
"""
TABLE = "| key | type | default | what it is |\n|---|---|---|---|"


def page() -> str:
    """The whole page: a table for each section, the keys on top, and those of a source."""
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
    names = {str: "text", int: "whole number", float: "number", bool: "true or false", SourceSection: "source"}
    return names[annotation]


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
