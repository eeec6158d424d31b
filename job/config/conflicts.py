"""Conflicts: keys of a config that are right one by one and cannot be meant together.

It knows the sections of a config. It does not know YAML or where a key stands.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from job.config.yaml_file import KeyPath, dotted

if TYPE_CHECKING:  # config asks here
    from job.config.schema import CleanSection, Config, DatasetSection, SourceSection

GENERATED: frozenset[str] = frozenset({"f1", "exact_match", "ended"})
"""The metrics that need generated answers, which `evaluate.generate_rows: 0` turns off."""


def found_in(config: "Config") -> Iterator[tuple[KeyPath, str]]:
    """Keys that are right one by one and cannot be meant together."""
    dataset, evaluate, publish = config.dataset, config.evaluate, config.publish
    if not dataset.sources or dataset.file is not None or dataset.name is not None:
        yield from _one_place(("dataset",), dataset, ", or `sources:` for several")
    for number, source in enumerate(dataset.sources):
        yield from _one_place(("dataset", "sources", number), source, "")
        yield from _columns_once(("dataset", "sources", number), source)
        yield from _whole_pair(("dataset", "sources", number), source, dataset)
    yield from _columns_once(("dataset",), dataset)
    if not dataset.sources or dataset.test is not None:  # else the sources may complete what it names
        yield from _whole_pair(("dataset",), dataset, dataset)
    if dataset.test == []:
        yield ("dataset", "test"), "is an empty list; name a file, or remove it for a split"
    yield from _lengths(config.clean)
    for key in _of_the_hub(dataset) if dataset.sources else ():
        yield ("dataset", key), "is set beside dataset.sources; set it in the source that it is meant for"
    if dataset.test is not None and config.split.folds is not None:
        yield ("split", "folds"), "is set, and dataset.test gives the test rows; remove one of the two"
    if dataset.test is not None and config.split.group is not None:
        yield (
            ("split", "group"),
            "is set, and dataset.test gives the test rows; nothing is split, so remove one of the two",
        )
    if config.split.fold > (config.split.folds or 1):
        yield ("split", "fold"), f"is {config.split.fold}, and split.folds is {config.split.folds or 'not set'}"
    if evaluate.gate in GENERATED and evaluate.generate_rows == 0:
        yield (
            ("evaluate", "gate"),
            f"is {evaluate.gate}, which needs generated answers, and evaluate.generate_rows is 0; "
            "set it above 0 or gate on loss",
        )
    if evaluate.gate == "off" and evaluate.gate_threshold is not None:
        yield ("evaluate", "gate_threshold"), "is set, and evaluate.gate is off; name a metric or remove it"
    for key in ("branch", "tag"):
        if getattr(publish, key) and not publish.repo:
            yield ("publish", key), "is set without publish.repo; name the repository or remove it"


def _lengths(clean: "CleanSection") -> Iterator[tuple[KeyPath, str]]:
    for text in ("question", "answer"):
        least, most = (getattr(clean, f"{end}_{text}_characters") for end in ("min", "max"))
        if most is not None and least > most:
            yield (
                ("clean", f"min_{text}_characters"),
                f"is {least}, above clean.max_{text}_characters, {most}, so every row would be rejected; exchange them",
            )


def _columns_once(path: KeyPath, section: "DatasetSection | SourceSection") -> Iterator[tuple[KeyPath, str]]:
    """A column is read or ignored."""
    for key in ("question", "answer"):
        if getattr(section, key) in section.ignore_columns:
            yield (*path, "ignore_columns"), f"holds {getattr(section, key)!r}, which {dotted((*path, key))} reads"
    if section.question is not None and section.question == section.answer:
        yield (*path, "answer"), f"is {section.answer!r}, the column of the questions as well; name two columns"


def _whole_pair(
    path: KeyPath, section: "DatasetSection | SourceSection", dataset: "DatasetSection"
) -> Iterator[tuple[KeyPath, str]]:
    """A column that is named without the other one would be passed over; a source takes what it lacks of dataset."""
    question, answer = (getattr(section, key) or getattr(dataset, key) for key in ("question", "answer"))
    if (question is None) != (answer is None):
        key = "question" if question else "answer"
        place = path if getattr(section, key) else ("dataset",)
        yield (*place, key), "is set alone; set both columns, question and answer, or neither"


def _of_the_hub(section: "DatasetSection | SourceSection") -> list[str]:
    """The keys that are set and only mean something for a Hub data set; a split of train is the default."""
    keys = [key for key in ("config", "revision") if getattr(section, key)]
    return keys + (["split"] if section.split != "train" else [])


def _one_place(path: KeyPath, section: "DatasetSection | SourceSection", more: str) -> Iterator[tuple[KeyPath, str]]:
    """Rows come from files or from the Hub, and what is for the one does not stand beside the other."""
    if section.file == []:
        yield (*path, "file"), "is an empty list; name a file, or remove it and set `name:` for a Hub data set"
    sources = getattr(section, "sources", ())
    if (section.file is None) == (section.name is None) or sources:
        names = {"file": section.file, "name": section.name, "sources": sources or None}
        named = [key for key, value in names.items() if value is not None]
        found = f"both {' and '.join(named)} are set" if named else "neither file nor name is set"
        yield path, f"{found}; expected one: `file:` for local files or `name:` for a Hub data set{more}"
    for key in _of_the_hub(section) if section.file is not None else ():
        yield (*path, key), f"is for a Hub data set, and {dotted((*path, 'file'))} is set; remove one of the two"
