"""Pins: replaces what the config leaves open by what was used, so that a rerun gives the same result.

A branch or tag becomes its commit, and `auto` what the search found. The module reads the facts of base, data and
search. It does not ask the Hub.
"""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from job.config.schema import Config, DatasetSection, SourceSection
from job.run.facts import BaseFacts, DataFacts, Source
from job.run.retriever_facts import GroundFacts
from job.run.search_facts import SearchFacts

Section = TypeVar("Section", DatasetSection, SourceSection)
AUTO = ("train.learning_rate", "train.epochs", "model.decoding")
"""The keys that a search may find."""
_COMMIT = re.compile(r"[0-9a-f]{40}")


def pin(
    config: Config,
    base: BaseFacts | None,
    data: DataFacts | None,
    ground: GroundFacts | None = None,
    search: SearchFacts | None = None,
) -> Config:
    """Set the revisions and the found settings that the facts name; what is not resolved yet stays as it is.

    Args:
        config: The config as requested.
        base: Facts of the base model; None if it is not fetched yet.
        data: Facts of the data; None if they are not prepared yet.
        ground: Facts of the retriever of a grounded generator; None if it is not fetched yet.
        search: Facts of the search; None if there was none.
    """
    if search is not None and search.finished:
        decoding = None if search.decoding is None else dict(search.decoding) or "greedy"
        found = {"train.learning_rate": search.learning_rate, "train.epochs": search.epochs}
        config = _settle(config, {**found, "model.decoding": decoding})
    model, dataset = config.model, config.dataset
    # if the base is a folder, its facts may name the model on the Hub that it was made from
    if base and base.revision is not None and base.base == model.base and not Path(model.base).is_dir():
        model = model.model_copy(update={"revision": base.revision})
    if ground and ground.revision is not None and ground.retriever == model.ground:
        model = model.model_copy(update={"ground_revision": ground.revision})
    resolved = iter([source for source in (data.sources if data else []) if source.revision is not None])
    sources = tuple(_pin_section(source, resolved) for source in dataset.sources)
    dataset = _pin_section(dataset, resolved).model_copy(update={"sources": sources})
    return config.model_copy(update={"model": model, "dataset": dataset})


def carry_commits(config: Config, before: Config) -> Config:
    """Take the commits of an earlier, pinned config wherever both name the same model or data set, and found values."""
    model, dataset = config.model, _carry_commit(config.dataset, before.dataset)
    if model.base == before.model.base and _is_commit(before.model.revision):
        model = model.model_copy(update={"revision": before.model.revision})
    if model.ground == before.model.ground and _is_commit(before.model.ground_revision):
        model = model.model_copy(update={"ground_revision": before.model.ground_revision})
    if len(dataset.sources) == len(before.dataset.sources):
        pairs = zip(dataset.sources, before.dataset.sources, strict=True)
        dataset = dataset.model_copy(update={"sources": tuple(_carry_commit(*pair) for pair in pairs)})
    config = config.model_copy(update={"model": model, "dataset": dataset})
    sections = (before.train, before.train, before.model)
    found = {key: getattr(section, key.partition(".")[2]) for key, section in zip(AUTO, sections, strict=True)}
    return _settle(config, {key: value for key, value in found.items() if value != "auto"})


def _settle(config: Config, found: Mapping[str, Any]) -> Config:
    """Put what was found in place of `auto`; the search's budget means nothing without one."""
    asked = [key for key in config.auto_keys() if found.get(key) is not None]
    if not asked:
        return config
    values = config.model_dump()
    for key in asked:
        section, _, name = key.partition(".")
        values[section][name] = found[key]
    if not set(config.auto_keys()) - set(asked):
        values["train"]["search_minutes"] = type(config.train).model_fields["search_minutes"].default
    sections = {name: type(getattr(config, name)).model_validate(values[name]) for name in ("train", "model")}
    return config.model_copy(update=sections)


def unpin(pinned: Any, config: Any) -> Any:
    """Remove the commits of a pinned config where `config` names no revision.

    The result stands for the request of a run that did not record it.

    Args:
        pinned: The pinned config as plain values, or a part of it.
        config: The same part of the config of this call.
    """
    if isinstance(pinned, list) and isinstance(config, list) and len(pinned) == len(config):
        return [unpin(*pair) for pair in zip(pinned, config, strict=True)]
    if not isinstance(pinned, dict) or not isinstance(config, dict):
        return pinned
    values = {key: unpin(value, config.get(key)) for key, value in pinned.items()}
    for key in ("revision", "ground_revision"):
        if config.get(key) in (None, "main") and _is_commit(values.get(key)):
            values[key] = config.get(key)
    return values


def _is_commit(revision: str | None) -> bool:
    return revision is not None and _COMMIT.fullmatch(revision) is not None


def _carry_commit(section: Section, before: Section) -> Section:
    if section.name is None or section.name != before.name or not _is_commit(before.revision):
        return section
    return section.model_copy(update={"revision": before.revision})


def _pin_section(section: Section, resolved: Iterator[Source]) -> Section:
    if section.name is None:
        return section
    source = next(resolved, None)
    if source is None or source.source != section.name:
        return section
    return section.model_copy(update={"revision": source.revision})
