"""Fact files: the JSON files of a run folder that hold its facts, written and read here alone.

A fact that is not known (None by default) is left out of its file. It knows files and JSON; what the facts mean is in
`facts`.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from job.errors import ConfigError
from job.run import durable
from job.run.facts import Answers, Asked, BaseFacts, DataFacts, Measured, Metrics, Published, TrainingFacts

VERSION = 1
"""Of the files' layout. It rises when a file of before could be read wrongly or not at all."""
FILES: Mapping[type, str] = {
    Asked: "asked.json",
    DataFacts: "data.json",
    BaseFacts: "base/base.json",
    TrainingFacts: "training.json",
    Measured: "measured.json",
    Metrics: "metrics.json",
    Answers: "answers.json",
    Published: "published.json",
}
_ADAPTERS: Mapping[type, TypeAdapter[Any]] = {kind: TypeAdapter(kind) for kind in FILES}
PHASES = "phases.json"
_ABSENT: Mapping[type, Mapping[str, Any]] = {
    Asked: {"files": {}, "resolved": {}, "version": 1},
    DataFacts: {
        **{name: [] for name in ("clusters", "conflicts", "doubtful", "rendered", "flagged", "notes")},
        **{"examples": {}, "closest": None, "mended": 0},
    },
    BaseFacts: {"checkpoint": None, "template_date": None, "weights": None},
    Metrics: {"model": None, "base": None},
}
"""What it means that a field is not there: an earlier version wrote the file before there was such a field."""
Facts = TypeVar("Facts")


class Damaged(ConfigError):
    """A file that does not hold the facts that it should; the text names it and says what is wrong with it."""


class OtherVersion(Damaged):
    """A file whose layout is another version's."""


def read(run: Path, kind: type[Facts]) -> Facts | None:
    """The facts of this kind in a run folder; None if they are not there.

    Raises:
        Damaged: the file is damaged.
        OtherVersion: another version of Kickoff wrote it.
    """
    path = run / FILES[kind]
    return load(path, kind) if path.exists() else None


def load(path: Path, kind: type[Facts]) -> Facts:
    """The facts of this kind in a file.

    Raises:
        Damaged, OtherVersion: as `read` says.
    """
    found = {**_ABSENT.get(kind, {}), **read_json(path)}
    if kind is Asked and found["version"] != VERSION:
        raise OtherVersion(f"{path} is of another version of Kickoff (facts {found['version']!r}, expected {VERSION})")
    if kind is Metrics:  # a model that was not measured is {} there
        found |= {name: found[name] or None for name in ("model", "base")}
    try:
        facts: Facts = _ADAPTERS[kind].validate_python(found)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(map(str, first["loc"]))
        raise Damaged(f"{path} is of another version of Kickoff, or damaged ({place}: {first['msg']})") from None
    return facts


def write(run: Path, facts: object) -> None:
    """Write the facts to their file in a run folder, all of it or nothing."""
    durable.write(run / FILES[type(facts)], dump(facts))


def dump(facts: object) -> str:
    """As JSON."""
    return durable.as_json(plain(facts))


def plain(facts: object) -> Any:
    """As JSON's own types, in the order of the fields; what is not known is left out."""
    found = _ADAPTERS[type(facts)].dump_python(facts, mode="json", exclude_defaults=True)
    if isinstance(facts, Metrics):
        found |= {name: found[name] or {} for name in ("model", "base")}
    return found


def read_phases(run: Path) -> dict[str, float]:
    """Seconds of each phase that a run has gone through.

    Raises:
        Damaged: the file is damaged.
    """
    path = run / PHASES
    return read_json(path) if path.exists() else {}


def write_phases(run: Path, seconds: dict[str, float]) -> None:
    durable.write(run / PHASES, durable.as_json(seconds))


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file.

    Raises:
        Damaged: there is none.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise Damaged(f"{path} is damaged ({error})") from None
    if not isinstance(found, dict):
        raise Damaged(f"{path} is damaged (it holds no JSON object)")
    return found
