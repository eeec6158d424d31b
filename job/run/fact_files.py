"""Fact files: the JSON files of a run folder that hold its facts, written and read here alone.

A fact that is not known (None by default) is left out of its file. It knows files and JSON; what the facts mean is in
`facts`.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

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
Facts = TypeVar("Facts")


class Damaged(Exception):
    """A file that does not hold the facts that it should; the text says what is wrong with it."""


def read(run: Path, kind: type[Facts]) -> Facts | None:
    """The facts of this kind in a run folder; None if they are not there.

    Raises:
        Damaged: the file is damaged, or another version of Kickoff wrote it.
    """
    path = run / FILES[kind]
    return load(path, kind) if path.exists() else None


def load(path: Path, kind: type[Facts]) -> Facts:
    """The facts of this kind in a file.

    Raises:
        Damaged: as `read` says.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise Damaged(f"is damaged ({error})") from None
    if not isinstance(found, dict):
        raise Damaged("is damaged (it holds no JSON object)")
    if kind is Asked:  # before there were versions, the files had the layout of the first
        found = {"resolved": {}, "files": {}, "version": 1, **found}
        if found["version"] != VERSION:
            raise Damaged(f"is of another version of Kickoff (facts {found['version']}, expected {VERSION})")
    if kind is Metrics:  # a model that was not measured is {} there
        found = {key: None if value == {} else value for key, value in found.items()}
    try:
        facts: Facts = _ADAPTERS[kind].validate_python(found)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(map(str, first["loc"]))
        raise Damaged(f"is of another version of Kickoff, or damaged ({place}: {first['msg']})") from None
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
    """Seconds of each phase that a run has gone through."""
    path = run / PHASES
    return dict(json.loads(path.read_text(encoding="utf-8"))) if path.exists() else {}


def write_phases(run: Path, seconds: dict[str, float]) -> None:
    durable.write(run / PHASES, durable.as_json(seconds))
