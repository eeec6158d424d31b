"""Pins: the config with each branch and tag replaced by the commit that was used, so that it reruns to the same.

It knows the facts that the base and the data left. It does not ask the Hub.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

from job.config.schema import Config, DatasetSection, SourceSection
from job.run.facts import BaseFacts, DataFacts, Source

Section = TypeVar("Section", DatasetSection, SourceSection)
_COMMIT = re.compile(r"[0-9a-f]{40}")


def pinned(config: Config, base: BaseFacts | None, data: DataFacts | None) -> Config:
    """The config with the revisions that base.json and data.json name; what is not resolved yet stays as it is."""
    model, dataset = config.model, config.dataset
    # the facts of a base that is a folder may name the model on the Hub that it was made from
    if base and base.revision is not None and base.base == model.base and not Path(model.base).is_dir():
        model = model.model_copy(update={"revision": base.revision})
    read = iter([source for source in (data.sources if data else []) if source.revision is not None])
    sources = tuple(_of(source, read) for source in dataset.sources)
    dataset = _of(dataset, read).model_copy(update={"sources": sources})
    return config.model_copy(update={"model": model, "dataset": dataset})


def kept(config: Config, before: Config) -> Config:
    """The config with the commits of an earlier one, wherever both name the same model or data set."""
    model, dataset = config.model, _kept(config.dataset, before.dataset)
    if model.base == before.model.base and _is_commit(before.model.revision):
        model = model.model_copy(update={"revision": before.model.revision})
    if len(dataset.sources) == len(before.dataset.sources):
        pairs = zip(dataset.sources, before.dataset.sources, strict=True)
        dataset = dataset.model_copy(update={"sources": tuple(_kept(*pair) for pair in pairs)})
    return config.model_copy(update={"model": model, "dataset": dataset})


def unpinned(pinned: Any, now: Any) -> Any:
    """A pinned config without the commits where the config of now leaves the revision open.

    It stands for what was asked for at first where nothing else says it any more.
    """
    if isinstance(pinned, list) and isinstance(now, list) and len(pinned) == len(now):
        return [unpinned(*pair) for pair in zip(pinned, now, strict=True)]
    if not isinstance(pinned, dict) or not isinstance(now, dict):
        return pinned
    found = {key: unpinned(value, now.get(key)) for key, value in pinned.items()}
    left_open = now.get("revision") in (None, "main") and _is_commit(found.get("revision"))
    return {**found, "revision": now.get("revision")} if left_open else found


def _is_commit(revision: str | None) -> bool:
    return revision is not None and _COMMIT.fullmatch(revision) is not None


def _kept(section: Section, before: Section) -> Section:
    if section.name is None or section.name != before.name or not _is_commit(before.revision):
        return section
    return section.model_copy(update={"revision": before.revision})


def _of(section: Section, read: Iterator[Source]) -> Section:
    if section.name is None:
        return section
    source = next(read, None)
    if source is None or source.source != section.name:
        return section
    return section.model_copy(update={"revision": source.revision})
