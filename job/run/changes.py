"""Changes: compares the config a run was started with and the config of a later call.

Some keys cannot alter finished work, and some values mean the same: a moved path, a branch and the commit it resolved
to, a batch split into other accumulation steps. Those may change. The module knows config keys and values; it does not
know the run folder.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from job.run.facts import Source

Values = dict[str, Any]
"""A config as JSON, or its keys with dots."""

_RESULT_SECTIONS = ("dataset", "clean", "dedupe", "split", "model", "train", "retriever", "seed")
"""Sections that determine the weights. The sections evaluate and publish are applied anew on each call."""
_HARMLESS = {
    "train.save_steps",
    "train.save_total_limit",
    "train.save_minutes",
    "train.device",
    "train.precision",  # a checkpoint can be resumed in any precision
    "train.logging_steps",
    "train.wandb_project",
    "train.search_minutes",  # the run folder starts a search over, as long as nothing is trained
    "retriever.unknown",
    "retriever.max_wrong",
    "retriever.threshold",
    "retriever.unknown_answer",
    "model.max_new_tokens",  # the run folder updates generation_config.json, and the metrics are measured again
}
_FOUND = ("train.learning_rate", "train.epochs", "model.decoding")
"""Keys that may be auto; then what the search found means the same."""
_BATCH = ("train.batch_size", "train.gradient_accumulation_steps")
Files = Mapping[str, Mapping[str, str]]
"""For each config key that names local files: {path: SHA-256}, in reading order."""


@dataclass(frozen=True)
class Change:
    """A config key whose value changed between two calls."""

    key: str
    before: Any
    now: Any

    def __str__(self) -> str:
        return f"{self.key} was {self.before!r} and is {self.now!r}"


def find_conflicts(before: Values, after: Values, pinned: Values, same_files: set[str], finished: bool) -> list[Change]:
    """Find the changes that would lead to other weights.

    Args:
        before: The config that was requested first.
        after: The config that is requested in this call.
        pinned: `before` with its revisions resolved to commits.
        same_files: Keys whose files hold the same bytes as before, under any path.
        finished: Whether the model is trained. Until then the checkpoint itself checks the batch size, since only it
            knows how many processes wrote it.

    Returns:
        The conflicting changes, in the order of the keys.
    """
    old, new, resolved = (dict(_flatten(config)) for config in (before, after, pinned))
    keys = [key for key in {**old, **new} if old.get(key) != new.get(key)]
    if not finished or _rows_per_step(old) == _rows_per_step(new):
        keys = [key for key in keys if key not in _BATCH]
    return [
        Change(key, old.get(key), new.get(key))
        for key in keys
        if key not in _HARMLESS
        and key not in same_files
        and not (
            key.endswith((".revision", ".ground_revision"))
            and _same_revision(new.get(key), old.get(key), resolved.get(key))
        )
        and not (key in _FOUND and old.get(key) == "auto" and new.get(key) == resolved.get(key))
        and not (key == "model.decoding" and new.get(key) != "auto")  # as model.max_new_tokens
    ]


def alters_preparation(key: str) -> bool:
    """Return whether data or base must be prepared again if this key changes."""
    return not key.startswith("train.") or key == "train.paraphrases"


def searches_anew(before: Values, after: Values, pinned: Values) -> bool:
    """Return whether a search must start over though no weights change: another budget, or other answers to measure.

    Args:
        before: The config that was requested first.
        after: The config of this call.
        pinned: `before` with what a search found.
    """
    searches = "auto" in (after["train"]["epochs"], after["train"]["learning_rate"], after["model"]["decoding"])
    minutes = [config["train"].get("search_minutes") for config in (before, after)]
    return (searches and minutes[0] != minutes[1]) or generation(after) not in (generation(before), generation(pinned))


def generation(config: Values) -> list[Any]:
    """Return what the answers depend on besides the weights."""
    return [config["model"].get(key) for key in ("max_new_tokens", "decoding")]


def keep_requested(before: Values, after: Values, pinned: Values) -> Values:
    """Replace commits in `after` by the requested branch or tag, and found values by `auto`, where both mean the same.

    Args:
        before: The config that was requested first.
        after: The config of this call.
        pinned: `before` with its revisions resolved and with what a search found.
    """
    config = dict(keep_requested_revisions(before, after, pinned))
    for key in _FOUND:
        section, _, name = key.partition(".")
        asked, now, found = (part[section].get(name) for part in (before, after, pinned))
        if asked == "auto" and now == found:
            config[section] = {**config[section], name: asked}
    return config


def keep_requested_revisions(before: Any, after: Any, pinned: Any) -> Any:
    """Replace commits in `after` by the branch or tag that was requested first and resolved to them.

    Args:
        before: The config that was requested first, or a part of it.
        after: The same part of the config of this call.
        pinned: The same part of `before` with its revisions resolved.

    Returns:
        `after` with the revisions of `before` wherever both mean the same commit.
    """
    if isinstance(after, list) and isinstance(before, list) and isinstance(pinned, list) and len(before) == len(after):
        return [keep_requested_revisions(*parts) for parts in zip(before, after, pinned, strict=True)]
    if not isinstance(after, dict) or not isinstance(before, dict) or not isinstance(pinned, dict):
        return after
    config = {key: keep_requested_revisions(before.get(key), value, pinned.get(key)) for key, value in after.items()}
    for key in ("revision", "ground_revision"):
        revisions = [part.get(key) for part in (after, before, pinned)]
        if key in after and _same_revision(*revisions):
            config[key] = revisions[1]
    return config


def same_files(before: Files, after: Files) -> set[str]:
    """Return the keys whose files have the same bytes and suffixes in the same order, under any name."""
    return {key for key in after if key in before and _contents(before[key]) == _contents(after[key])}


def changed_files(before: Files, after: Files) -> list[str]:
    """Return the paths that were added, removed or modified, of the keys that name files before and after."""
    keys = (before.keys() & after.keys()) - same_files(before, after)
    return sorted({path for key in keys for path, _ in before[key].items() ^ after[key].items()})


def changed_sources(prepared: Sequence[Source], files: Files) -> list[str]:
    """Return the local files whose bytes differ from those that were prepared.

    Args:
        prepared: The sources of the prepared data.
        files: {config key: {path: SHA-256}} of the files now.
    """
    known = {source.sha256: source.source for source in prepared if source.sha256 is not None}
    current = {digest: path for named in files.values() for path, digest in named.items()}
    if not known or known.keys() == current.keys():
        return []
    return sorted({(known | current)[digest] for digest in known.keys() ^ current.keys()})


def _contents(files: Mapping[str, str]) -> list[tuple[list[str], str]]:
    return [([suffix.lower() for suffix in Path(path).suffixes], digest) for path, digest in files.items()]


def _flatten(config: Values) -> Iterator[tuple[str, Any]]:
    for section in _RESULT_SECTIONS:
        values = config[section]
        if not isinstance(values, dict):
            yield section, values
            continue
        for key, value in values.items():
            if key != "sources":
                yield f"{section}.{key}", value
        for number, source in enumerate(values.get("sources", [])):
            yield from ((f"{section}.sources.{number}.{key}", value) for key, value in source.items())


def _rows_per_step(flat: Values) -> int:
    """Rows of one optimizer step in one process."""
    return int(flat[_BATCH[0]]) * int(flat[_BATCH[1]])


def _same_revision(after: Any, before: Any, resolved: Any) -> bool:
    return after is not None and after == resolved or (after or "main") == (before or "main")
