"""Fact files: reads and writes the JSON files that hold the facts of a run.

A fact that is not known (its default, such as None) is left out of its file. The module knows files and JSON; what the
facts mean is in `facts`.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from job.errors import ConfigError
from job.run import durable
from job.run.facts import Answers, BaseFacts, DataFacts, Measured, Metrics, Published, RunRequest, TrainingFacts
from job.run.retriever_facts import GroundFacts, UnknownQuestions
from job.run.search_facts import SearchFacts

VERSION = 1
"""Version of the files' layout. Raise it when an older file could be misread or not read at all."""
FILES: Mapping[type, str] = {
    RunRequest: "asked.json",
    DataFacts: "data.json",
    BaseFacts: "base/base.json",
    GroundFacts: "ground.json",
    UnknownQuestions: "unknown.json",
    SearchFacts: "search.json",
    TrainingFacts: "training.json",
    Measured: "measured.json",
    Metrics: "metrics.json",
    Answers: "answers.json",
    Published: "published.json",
}
_ADAPTERS: Mapping[type, TypeAdapter[Any]] = {kind: TypeAdapter(kind) for kind in FILES}
PHASES = "phases.json"
_MISSING_FIELDS: Mapping[type, Mapping[str, Any]] = {
    RunRequest: {"files": {}, "resolved": {}, "version": 1},
    DataFacts: {
        **{name: [] for name in ("clusters", "conflicts", "doubtful", "rendered", "flagged", "notes")},
        **{"examples": {}, "closest": None, "mended": 0},
    },
    BaseFacts: {"checkpoint": None, "template_date": None, "weights": None},
    Metrics: {"model": None, "base": None},
}
"""Values of fields that an earlier version of Kickoff did not write yet."""
Facts = TypeVar("Facts")


class Damaged(ConfigError):
    """A file does not hold the facts that it should; the text names the file and the problem."""


class OtherVersion(Damaged):
    """Another version of Kickoff wrote the file, with another layout."""


def read(run: Path, kind: type[Facts]) -> Facts | None:
    """Read the facts of one kind from a run folder.

    Args:
        run: The run folder.
        kind: A class of `FILES`.

    Returns:
        The facts; None if their file does not exist.

    Raises:
        Damaged: The file is damaged.
        OtherVersion: Another version of Kickoff wrote it.
    """
    path = run / FILES[kind]
    return load(path, kind) if path.exists() else None


def load(path: Path, kind: type[Facts]) -> Facts:
    """Read the facts of one kind from a file.

    Args:
        path: The JSON file.
        kind: A class of `FILES`.

    Raises:
        Damaged: The file is damaged.
        OtherVersion: Another version of Kickoff wrote it.
    """
    fields = {**_MISSING_FIELDS.get(kind, {}), **read_json(path)}
    if kind is RunRequest and fields["version"] != VERSION:
        raise OtherVersion(
            f"{path} is from another version of Kickoff (facts {fields['version']!r}, expected {VERSION})"
        )
    if kind is Metrics:  # the file holds {} for a model that was not measured
        fields |= {name: fields[name] or None for name in ("model", "base")}
    try:
        facts: Facts = _ADAPTERS[kind].validate_python(fields)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        field = ".".join(map(str, first["loc"]))
        raise Damaged(f"{path} is from another version of Kickoff, or damaged ({field}: {first['msg']})") from None
    return facts


def write(run: Path, facts: object) -> None:
    """Write facts to their file in a run folder, atomically."""
    durable.write(run / FILES[type(facts)], dump(facts))


def dump(facts: object) -> str:
    """Return facts as the JSON text of their file."""
    return durable.as_json(plain(facts))


def plain(facts: object) -> Any:
    """Return facts as plain dicts and lists, in the order of the fields and without those at their default."""
    fields = _ADAPTERS[type(facts)].dump_python(facts, mode="json", exclude_defaults=True)
    if isinstance(facts, Metrics):
        fields |= {name: fields[name] or {} for name in ("model", "base")}
    return fields


def read_phases(run: Path) -> dict[str, float]:
    """Read the seconds that each finished phase of a run took.

    Raises:
        Damaged: The file is damaged.
    """
    path = run / PHASES
    return read_json(path) if path.exists() else {}


def write_phases(run: Path, seconds: dict[str, float]) -> None:
    """Write the seconds of each finished phase, atomically."""
    durable.write(run / PHASES, durable.as_json(seconds))


def read_json(path: Path) -> dict[str, Any]:
    """Read the JSON object in a file.

    Raises:
        Damaged: The file is not JSON, or not an object.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise Damaged(f"{path} is damaged ({error})") from None
    if not isinstance(content, dict):
        raise Damaged(f"{path} is damaged (it holds no JSON object)")
    return content
