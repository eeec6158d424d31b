"""Pins: the config with each branch and tag replaced by the commit that was used, so that it reruns to the same.

It knows the facts that the base and the data left. It does not ask the Hub.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

from job.config import Config, DatasetSection, SourceSection

Section = TypeVar("Section", DatasetSection, SourceSection)


def pinned(config: Config, base: dict[str, Any] | None, data: dict[str, Any] | None) -> Config:
    """The config with the revisions that base.json and data.json name; what is not resolved yet stays as it is."""
    model, dataset = config.model, config.dataset
    revision = (base or {}).get("revision")
    # the facts of a base that is a folder may name the model on the Hub that it was made from
    if revision is not None and (base or {}).get("base") == model.base and not Path(model.base).is_dir():
        model = model.model_copy(update={"revision": revision})
    read = iter([fact for fact in (data or {}).get("sources", []) if "revision" in fact])
    sources = tuple(_of(source, read) for source in dataset.sources)
    dataset = _of(dataset, read).model_copy(update={"sources": sources})
    return config.model_copy(update={"model": model, "dataset": dataset})


def _of(section: Section, read: Iterator[dict[str, Any]]) -> Section:
    if section.name is None:
        return section
    fact: dict[str, Any] = next(read, {})
    return section.model_copy(update={"revision": fact["revision"]}) if fact.get("source") == section.name else section
