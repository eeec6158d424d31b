"""Read: reads a config from its YAML file, checks all of it before anything is downloaded, and writes it back.

It reports all errors of a file at once, each with its line and column. It opens no other file than the config.
"""

import difflib
from pathlib import Path
from typing import Any, get_args

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from job.config import conflicts, yaml_file
from job.config.schema import Config, Metric, Section, SourceSection
from job.config.yaml_file import Document, KeyPath, dotted_key, shorten
from job.errors import ConfigError


def load(path: Path, overrides: list[str] | None = None) -> Config:
    """Read and check a config.

    Args:
        path: of the YAML file.
        overrides: `section.key=value` (or `key=value` for `output` and `seed`), with the value in YAML.

    Returns:
        The config, with every default filled in.

    Raises:
        ConfigError: all errors of the file, one per line, as `file:line:column: ...`.
    """
    document = yaml_file.read(path)
    if not isinstance(document.data, dict):
        raise ConfigError(
            f"{path}:1:1: found {shorten(document.data)}, expected sections such as `dataset:` and `train:`"
        )
    data = {key: {} if value is None and key in _sections() else value for key, value in document.data.items()}
    problems = document.problems + [problem for text in overrides or [] if (problem := _override(data, document, text))]
    config, invalid = _validate(data, document)
    problems += invalid
    if problems or config is None:
        raise ConfigError("\n".join(problems))
    return config


def dump(config: Config) -> str:
    """Write the config as YAML with every default filled in, which `load` reads back to an equal config."""
    return yaml_file.write(values(config))


def values(config: Config) -> dict[str, Any]:
    """Give the values that `dump` writes, without the keys of `retriever` that `load` would refuse for a generator."""
    if config.model.kind == "retriever":
        return config.model_dump(mode="json")
    values = config.model_dump(mode="json", exclude={"retriever"})
    unknown = config.retriever.unknown
    return values if unknown is None else {**values, "retriever": {"unknown": unknown}}


def _override(data: dict[Any, Any], document: Document, text: str) -> str | None:
    """Put one `section.key=value` into `data`; returns the problem in words if that fails."""
    name, separator, value = text.partition("=")
    path = tuple(name.split("."))
    if not separator or not all(path) or len(path) > 2:
        return f"command line: found {text!r}, expected section.key=value, such as train.epochs=3"
    target = data if len(path) == 1 else data.setdefault(path[0], {})
    if not isinstance(target, dict):
        return None  # the section itself is wrong, which validation reports
    try:
        target[path[-1]] = yaml_file.value(value)
    except ValueError as error:
        return f"command line: {name}: {error}"
    document.locations[path] = f"command line: {text}"
    return None


def _validate(data: dict[Any, Any], document: Document) -> tuple[Config | None, list[str]]:
    try:
        config = Config.model_validate(data)
    except ValidationError as error:
        # pydantic reports each arm of a union; one line per key is enough
        lines = {_field_path(item): _problem(item, document) for item in reversed(error.errors())}
        return None, list(reversed(lines.values()))
    conflict_lines = dict.fromkeys(conflicts.find_conflicts(config))  # several sources may meet the same key of dataset
    return config, [f"{document.nearest(path)}: {dotted_key(path)}: {message}" for path, message in conflict_lines]


def _field_path(item: ErrorDetails) -> KeyPath:
    """The keys of an error's location, without the names of union arms that pydantic appends."""
    location = item["loc"]
    if len(location) < 3 or isinstance(location[2], str):
        return location[:2]
    return location[:4] if len(location) > 3 and isinstance(location[3], str) else location[:3]


def _problem(item: ErrorDetails, document: Document) -> str:
    path = _field_path(item)
    start = f"{document.nearest(path)}: {dotted_key(path)}:"
    if item["type"] in ("extra_forbidden", "invalid_key") and path != (
        "model",
        "decoding",
    ):  # invalid: a key that is no text, such as `1:`
        return f"{start} unknown key{_did_you_mean(path)}"
    if item["type"] == "missing":
        return f"{start} missing; expected a section `{path[-1]}:`"
    if path == ("publish", "repo"):
        return f"{start} found {shorten(item['input'])}, expected owner/name"
    return f"{start} found {shorten(item['input'])}, expected {_expected(path, item)}"


def _expected(path: KeyPath, item: ErrorDetails) -> str:
    section = Config.model_fields[str(path[0])].annotation
    if len(path) == 1 and isinstance(section, type) and issubclass(section, Section):
        return "a section with keys, such as " + ", ".join(list(section.model_fields)[:3])
    if path == ("evaluate", "gate"):
        return "one of " + ", ".join((*get_args(Metric), "auto", "off"))
    if path == ("model", "decoding"):
        return "greedy, auto, or settings such as {repetition_penalty: 1.1, no_repeat_ngram_size: 3}"
    words = item["msg"].removeprefix("Input should be ").replace("String should have", "text with")
    for term, plain in (("a valid tuple", "a list"), ("a valid string", "text"), ("a valid integer", "a whole number")):
        words = words.replace(term, plain)
    or_auto = ", or auto" if path in (("train", "epochs"), ("train", "learning_rate")) else ""
    return words.replace("a valid ", "a ").replace("a boolean", "true or false") + or_auto


def _sections() -> list[str]:
    return [name for name, field in Config.model_fields.items() if field.annotation not in (str, int)]


def _keys_by_section() -> dict[str, list[str]]:
    """The keys of every section; the top-level keys are under ""."""
    sections = {name: list(getattr(Config.model_fields[name].annotation, "model_fields", {})) for name in _sections()}
    return {"": list(Config.model_fields), **sections, "dataset.sources": list(SourceSection.model_fields)}


def _did_you_mean(path: KeyPath) -> str:
    *section, key = (str(part) for part in path)
    keys = _keys_by_section()
    valid_keys = keys.get(".".join(part for part in section if not part.isdigit()), [])
    matches = difflib.get_close_matches(key, valid_keys, n=1)
    same_name = [f"{name}.{key}".lstrip(".") for name, names in keys.items() if key in names]
    guess = same_name or [".".join((*section, matches[0]))] if matches or same_name else []
    return f"; did you mean {guess[0]}?" if guess else f"; known here: {', '.join(valid_keys)}"
