"""YAML file: reads a YAML file into Python values with the line and column of each, and writes values as YAML.

It knows YAML: the numbers of YAML 1.2, duplicate keys, lines and columns. It does not know which keys a config has.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from job.errors import ConfigError

KeyPath = tuple[str | int, ...]
"""The keys, and positions in lists, that lead to a value."""


@dataclass(frozen=True)
class Document:
    """A YAML file that was read."""

    file: str
    data: Any
    locations: dict[KeyPath, str] = field(default_factory=dict)
    """Of each key, as file:line:column."""
    problems: list[str] = field(default_factory=list)
    """A line for each duplicate key."""

    def nearest(self, path: KeyPath) -> str:
        """Find the location of a key, or of the nearest key above it that exists."""
        above = (self.locations[path[:end]] for end in range(len(path), 0, -1) if path[:end] in self.locations)
        return next(above, f"{self.file}:1:1")


def read(path: Path) -> Document:
    """Read a YAML file.

    Raises:
        ConfigError: the file cannot be read, or is not YAML; with the location.
    """
    text = _read_text(path)
    locations: dict[KeyPath, str] = {}
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        problems = list(_note_locations(node, str(path), (), locations)) if node else []
        data = loader.construct_document(node) if node else {}
    except yaml.MarkedYAMLError as error:
        raise ConfigError(_yaml_problem(path, error)) from None
    except yaml.reader.ReaderError as error:
        location = f"{path}:{text.count(chr(10), 0, error.position) + 1}"
        raise ConfigError(f"{location}: not valid YAML: holds the control character {chr(error.character)!r}") from None
    except RecursionError:
        raise ConfigError(f"{path}: not valid YAML: nested too deeply, or an alias contains itself") from None
    return Document(str(path), data, locations, problems)


def value(text: str) -> Any:
    """Read a single value in YAML.

    Raises:
        ValueError: the text is not YAML.
    """
    try:
        return yaml.load(text, Loader=_Loader)  # noqa: S506, a subclass of SafeLoader
    except (yaml.YAMLError, RecursionError):
        raise ValueError(f"found {text!r}, which is not valid YAML; quote it") from None


def write(data: Any) -> str:
    """Write values as YAML, which `read` reads back to equal values."""
    return yaml.dump(data, Dumper=_Dumper, sort_keys=False, allow_unicode=True)


def dotted_key(path: KeyPath) -> str:
    """Write the path of a key as `section.key`."""
    return ".".join(str(part) for part in path)


def shorten(value: object) -> str:
    """Write a value for an error, in at most 60 characters."""
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


class _Loader(yaml.SafeLoader):
    """YAML with the numbers and booleans of YAML 1.2: `1e-4` is a number, `off` and `no` are text."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep)
        except (ValueError, AttributeError):  # a tag such as !!int on text, or an integer of 5,000 digits
            problem = f"{shorten(node.value)} cannot be read as {node.tag.rpartition(':')[2]}"
            raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark) from None


for _tag, _pattern, _first in (
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("int", r"[-+]?[0-9]+", "-+0123456789"),
    ("float", r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf)|\.(nan|NaN)", "-+.0123456789"),
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("merge", r"<<", "<"),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(rf"^(?:{_pattern})$"), list(_first))


def _construct_int(loader: _Loader, node: yaml.ScalarNode) -> int:
    return int(loader.construct_scalar(node))  # SafeLoader would read 010 as 8 and 1:30 as 90


def _construct_float(loader: _Loader, node: yaml.ScalarNode) -> float:
    return float(loader.construct_scalar(node).lower().replace(".inf", "inf").replace(".nan", "nan"))


_Loader.add_constructor("tag:yaml.org,2002:int", _construct_int)
_Loader.add_constructor("tag:yaml.org,2002:float", _construct_float)


class _Dumper(yaml.SafeDumper):
    """Quotes whatever `_Loader` would not read back as the same text."""

    yaml_implicit_resolvers = _Loader.yaml_implicit_resolvers


def _represent_text(dumper: _Dumper, text: str) -> yaml.ScalarNode:
    # YAML's rarer line breaks are read back as blanks unless they are escaped
    style = '"' if re.search("[\x85\u2028\u2029]", text) else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _represent_text)


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file; expected the path of a YAML config") from None
    except IsADirectoryError:
        raise ConfigError(f"{path}: is a folder; expected the path of a YAML config") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8 text (byte {error.start}); save the file as UTF-8") from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror})") from None


def _yaml_problem(path: Path, error: yaml.MarkedYAMLError) -> str:
    mark = error.problem_mark or error.context_mark
    location = f"{path}:{mark.line + 1}:{mark.column + 1}" if mark else str(path)
    hint = "; YAML is indented with spaces, never with tabs" if "'\\t'" in (error.problem or "") else ""
    return f"{location}: not valid YAML: {error.problem}{hint}"


def _note_locations(node: yaml.Node, file: str, path: KeyPath, locations: dict[KeyPath, str]) -> Iterator[str]:
    """Add the location of every key to `locations`, and yield a line for each duplicate key of a mapping."""
    if isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            locations[*path, index] = _location(file, item)
            yield from _note_locations(item, file, (*path, index), locations)
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            path_of_key = (*path, key.value if isinstance(key, yaml.ScalarNode) else str(key.tag))
            if path_of_key in locations:
                first = locations[path_of_key]
                yield f"{_location(file, key)}: {dotted_key(path_of_key)} is set twice; first at {first}"
                continue
            locations[path_of_key] = _location(file, key)
            yield from _note_locations(value, file, path_of_key, locations)


def _location(file: str, node: yaml.Node) -> str:
    return f"{file}:{node.start_mark.line + 1}:{node.start_mark.column + 1}"
