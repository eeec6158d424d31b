"""Changes: what differs between the config a run began with and the one it is called with again.

Some keys cannot alter work that is finished, and some values say the same thing in other words: a path that moved, a
branch and the commit it led to, a batch that is divided otherwise. These may change. It knows keys and values; it does
not know the run folder.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_DECIDING = ("dataset", "clean", "dedupe", "split", "model", "train", "seed")
"""Sections that decide the weights. What evaluate and publish say is asked anew each time."""
_FREE = {
    "train.save_steps",
    "train.save_total_limit",
    "train.save_minutes",
    "train.device",
    "train.precision",  # a checkpoint goes on in any
    "train.logging_steps",
    "train.wandb_project",
    "model.max_new_tokens",  # the run folder puts it where the models say it, and measures again
}
_BATCH = ("train.batch_size", "train.gradient_accumulation_steps")
Files = Mapping[str, Mapping[str, str]]
"""For each key of the config that names local files: their paths and SHA-256, in the order they are read."""


@dataclass(frozen=True)
class Change:
    key: str
    before: Any
    now: Any

    def __str__(self) -> str:
        return f"{self.key} was {self.before!r} and is {self.now!r}"


def deciding(
    before: dict[str, Any], now: dict[str, Any], pinned: dict[str, Any], same_files: set[str], finished: bool
) -> list[Change]:
    """The changes that would give other weights.

    Args:
        before: the config as it was asked for.
        pinned: the same with the revisions that were resolved.
        same_files: keys whose files hold the same bytes as before, wherever they lie.
        finished: whether the model is trained. Until then a checkpoint judges another division of the batch itself,
            since only it knows with how many processes it was made.
    """
    old, new, resolved = (dict(_flat(config)) for config in (before, now, pinned))
    keys = [key for key in {**old, **new} if old.get(key) != new.get(key)]
    if not finished or _product(old) == _product(new):
        keys = [key for key in keys if key not in _BATCH]
    return [
        Change(key, old.get(key), new.get(key))
        for key in keys
        if key not in _FREE
        and key not in same_files
        and not (key.endswith(".revision") and _same_revision(new.get(key), old.get(key), resolved.get(key)))
    ]


def with_wishes(before: Any, now: Any, pinned: Any) -> Any:
    """The config of now; where it names the commit that a branch led to, the branch that was asked for at first."""
    if isinstance(now, list) and isinstance(before, list) and isinstance(pinned, list) and len(before) == len(now):
        return [with_wishes(*three) for three in zip(before, now, pinned, strict=True)]
    if not isinstance(now, dict) or not isinstance(before, dict) or not isinstance(pinned, dict):
        return now
    kept = {key: with_wishes(before.get(key), value, pinned.get(key)) for key, value in now.items()}
    revisions = [config.get("revision") for config in (now, before, pinned)]
    return {**kept, "revision": revisions[1]} if "revision" in now and _same_revision(*revisions) else kept


def same_files(before: Files, now: Files) -> set[str]:
    """Keys whose files have the same bytes and kinds, in the same order, under whatever names."""
    return {key for key in now if key in before and _bytes(before[key]) == _bytes(now[key])}


def changed_files(before: Files, now: Files) -> list[str]:
    """Paths behind the keys that name files now as before, with other bytes than then or than now."""
    keys = (before.keys() & now.keys()) - same_files(before, now)
    return sorted({path for key in keys for path, _ in before[key].items() ^ now[key].items()})


def _bytes(files: Mapping[str, str]) -> list[tuple[list[str], str]]:
    return [([suffix.lower() for suffix in Path(path).suffixes], digest) for path, digest in files.items()]


def _flat(config: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    for section in _DECIDING:
        values = config[section]
        if not isinstance(values, dict):
            yield section, values
            continue
        for key, value in values.items():
            if key != "sources":
                yield f"{section}.{key}", value
        for number, source in enumerate(values.get("sources", [])):
            yield from ((f"{section}.sources.{number}.{key}", value) for key, value in source.items())


def _product(flat: dict[str, Any]) -> int:
    """Rows of an optimizer step in one process."""
    return int(flat[_BATCH[0]]) * int(flat[_BATCH[1]])


def _same_revision(now: Any, asked: Any, resolved: Any) -> bool:
    return now is not None and now == resolved or (now or "main") == (asked or "main")
