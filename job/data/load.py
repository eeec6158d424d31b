"""Load: from files and Hub data sets to rows with a question, an answer and the place where they stood.

It knows sources, column names and what a row must have at the least: two texts. Repairing and judging them is clean's
work. The rows go to disk as they are read, so a data set may be larger than memory.

A rejected row carries its question and answer as they were found, with secrets blotted out.
"""

import difflib
import logging
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa

from job.config.schema import DatasetSection, SourceSection
from job.data import column_types, files, hub_rows, local_files, unused_columns
from job.data.credentials import masked
from job.data.draw import Draw
from job.data.files import WANTED, Choose, Chunk, kind
from job.data.hub_rows import HubName
from job.data.rows import write
from job.data.unused_columns import LeftOut
from job.errors import ConfigError, DataError
from job.run.facts import Source
from job.run.row_facts import Rejection

COLUMN_PAIRS = (
    ("question", "answer"),
    ("prompt", "completion"),
    ("prompt", "response"),
    ("instruction", "output"),
    ("instruction", "response"),
    ("input", "output"),
    ("query", "response"),
    ("question", "response"),
)
SCHEMA = pa.schema(
    {"question": pa.string(), "answer": pa.string(), "where": pa.string(), "id": pa.int64(), "group": pa.string()}
)
"""`id` counts the rows in; `group` is the value of split.group's column, null without one."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Source:
    """Something to read: a file or a data set, and what the config says of it."""

    read: Callable[[Choose], Iterator[Chunk]]
    name: str
    """What its rows are known by."""
    source: str
    """Its path, or its name on the Hub."""
    origin: dict[str, str | None]
    """The hash of its content, or its commit, configuration and split."""
    question: str | None
    answer: str | None
    ignored: tuple[str, ...]
    draw: Draw
    names: dict[str, None] = field(default_factory=dict)
    """The columns that it has, filled in as they are met."""


def load(
    section: DatasetSection, folder: Path, seed: int, group: str | None = None
) -> tuple[datasets.Dataset, datasets.Dataset | None, list[Rejection], list[Source]]:
    """Read what the config names.

    Args:
        folder: where the rows are written, as Arrow files.
        seed: of the draw, where a source has a weight below 1.
        group: a column to carry along, for the split.

    Returns:
        The rows with SCHEMA, question and answer non-empty text; the test rows given apart, or None; the rejected
        ones; and what was read of each source.

    Raises:
        DataError: a file or data set cannot be read, its columns cannot be told, or one that is left out is needed.
        ConfigError: a column that the config names is not there.
    """
    sources = list(_sources(section, seed))
    tests = list(_files(section.test, section, section, Draw(1.0, []))) if section.test is not None else []
    rejected: list[Rejection] = []
    facts: list[Source] = []
    left_out = LeftOut(asks=all(source.question is None for source in sources))
    rows = write(folder / "loaded.arrow", SCHEMA, _batches(sources, 0, group, rejected, facts, left_out))
    test = None
    if section.test is not None:
        first = sum(source.rows for source in facts)
        test = write(folder / "test.arrow", SCHEMA, _batches(tests, first, None, rejected, facts, left_out))
    _require_drawn(sources)
    _require_ignored([*sources, *tests], section)
    needed, remarks = left_out.judged()
    if needed:
        raise DataError(unused_columns.refusal(needed))
    for remark in remarks:
        log.warning(f"load: {remark}")
    return rows, test, rejected, facts


def _sources(section: DatasetSection, seed: int) -> Iterator[_Source]:
    listed: tuple[SourceSection | DatasetSection, ...] = section.sources or (section,)
    for number, source in enumerate(listed):
        draw = Draw(getattr(source, "weight", 1.0), [seed, number])
        if source.file is not None:
            yield from _files(source.file, source, section, draw)
        else:
            yield _hub(source, section, draw)


def _files(
    named: str | list[str], source: SourceSection | DatasetSection, section: DatasetSection, draw: Draw
) -> Iterator[_Source]:
    names = [path.name for path in local_files.paths(section)]
    for path in files.paths(named):
        yield _Source(
            partial(files.read, path),
            # train/qa.json and test/qa.json: the name alone would give two rows the same place
            path.name if names.count(path.name) == 1 else str(path),
            str(path),
            {"sha256": files.fingerprint(path)},
            *_named_columns(source, section),
            draw,
        )


def _hub(source: SourceSection | DatasetSection, section: DatasetSection, draw: Draw) -> _Source:
    name = str(source.name)
    loaded, commit = hub_rows.load(HubName(name, source.config, source.revision, source.split))
    origin = {"revision": commit, "config": source.config, "split": source.split}
    read = partial(hub_rows.chunks, loaded, source.split)
    return _Source(read, name, name, origin, *_named_columns(source, section), draw)


def _named_columns(
    source: SourceSection | DatasetSection, section: DatasetSection
) -> tuple[str | None, str | None, tuple[str, ...]]:
    """The pair, if it is named, and the columns to ignore."""
    ignored = tuple(dict.fromkeys((*section.ignore_columns, *source.ignore_columns)))
    return source.question or section.question, source.answer or section.answer, ignored


def _batches(
    sources: list[_Source],
    first: int,
    group: str | None,
    rejected: list[Rejection],
    facts: list[Source],
    left_out: LeftOut,
) -> Iterator[dict[str, list[Any]]]:
    """Every source's rows as columns of SCHEMA; what is rejected and the facts go to the lists given."""
    for source in sources:
        start, not_drawn, used = first, source.draw.not_drawn, None
        choose = partial(_wanted, source, group, left_out)
        for chunk in source.draw.drawn(source.read(choose)):
            source.names.update(dict.fromkeys(chunk.names))
            used = used or _columns(chunk.names, source, group)
            kept = _kept(chunk, source.name, used, group, first, rejected)
            others = {
                name: chunk.columns[name] for name in chunk.columns if name not in (*used, group, *source.ignored)
            }
            _show(kept, others, first, left_out)
            yield kept
            first += len(chunk.places)
        if used is None:
            raise DataError(f"{source.source}: holds no row; {WANTED}")
        question, answer = used
        unused = [str(masked(name)) for name in source.names if name not in (*used, group)]
        left = source.draw.not_drawn - not_drawn if source.draw.weight < 1 else None
        facts.append(Source(source.source, question, answer, unused, first - start, **source.origin, not_drawn=left))


def _wanted(source: _Source, group: str | None, left_out: LeftOut, schema: pa.Schema) -> list[str]:
    """The columns to read: the pair, the group, and those that may show that the pair is not enough."""
    used = {*_columns(schema.names, source, group), group}
    beside = pa.schema([column for column in schema if column.name not in used and column.name not in source.ignored])
    for name in column_types.unread(beside):
        left_out.see_unread(name, source.source)
    wanted = {*used, *column_types.worth_reading(beside)}
    return [name for name in schema.names if name in wanted]


def _show(kept: dict[str, list[Any]], others: dict[str, list[Any]], first: int, left_out: LeftOut) -> None:
    """Let the rows kept be seen with the columns left out."""
    positions = [id_ - first for id_ in kept["id"]]
    beside = {name: [values[position] for position in positions] for name, values in others.items()}
    left_out.see(kept["question"], kept["answer"], kept["where"], beside)


def _kept(
    chunk: Chunk, name: str, used: tuple[str, str], group: str | None, first: int, rejected: list[Rejection]
) -> dict[str, list[Any]]:
    """The rows of a chunk that hold two texts."""
    nothing = [None] * len(chunk.places)
    questions, answers = (chunk.columns.get(column, nothing) for column in used)
    groups = chunk.columns.get(group, nothing) if group is not None else nothing
    kept: dict[str, list[Any]] = {key: [] for key in SCHEMA.names}
    for number, (place, question, answer) in enumerate(zip(chunk.places, questions, answers, strict=True)):
        where = f"{name} {place}"
        reason = _wrong("question", question) or _wrong("answer", answer)
        if reason is not None:
            shown = (masked(_plain(question)), masked(_plain(answer)))
            rejected.append(Rejection(where, "load", reason, shown=shown))
            continue
        value = groups[number]
        values = (question, answer, where, first + number, None if _missing(value) else str(_plain(value)))
        for key, item in zip(kept, values, strict=True):
            kept[key].append(item)
    return kept


def _require_drawn(sources: list[_Source]) -> None:
    for draw in {id(source.draw): source.draw for source in sources}.values():
        if draw.seen and draw.seen == draw.not_drawn:
            labels = ", ".join(source.source for source in sources if source.draw is draw)
            raise ConfigError(
                f"dataset.sources: weight {draw.weight} draws none of the {draw.seen} rows of {labels}; raise it, or "
                "leave the source out"
            )


def _require_ignored(sources: list[_Source], section: DatasetSection) -> None:
    """A column to ignore that is nowhere is a misspelling, and the one that was meant is not ignored."""
    for name in dict.fromkeys(name for source in sources for name in source.ignored):
        theirs = [source for source in sources if name in source.ignored]
        there = list(dict.fromkeys(column for source in theirs for column in source.names))
        if name not in there:
            near = difflib.get_close_matches(name, there, n=1)
            guess = f"; did you mean {near[0]!r}?" if near else f"; found {_listed(there)}"
            raise ConfigError(
                f"dataset.ignore_columns: {', '.join(source.source for source in theirs)} has no column {name!r}{guess}"
            )


def _columns(names: list[str], source: _Source, group: str | None) -> tuple[str, str]:
    """The columns of question and answer."""
    if group is not None and group not in names:
        raise ConfigError(f"split.group: {source.source} has no column {group!r}; it has {_listed(names)}")
    if source.question is not None and source.answer is not None:
        for key, column in (("question", source.question), ("answer", source.answer)):
            if column not in names:
                raise ConfigError(f"dataset.{key}: {source.source} has no column {column!r}; it has {_listed(names)}")
        return source.question, source.answer
    by_lower = {name.strip().lower(): name for name in reversed(names) if name not in source.ignored}
    for question, answer in COLUMN_PAIRS:
        if question in by_lower and answer in by_lower:
            return by_lower[question], by_lower[answer]
    hint = " (is the delimiter one of , ; tab | ?)" if len(names) == 1 and ".csv" in source.source else ""
    raise DataError(
        f"{source.source}: cannot tell the columns: found {_listed(names)}{hint}, expected question and answer; "
        "name yours with dataset.question and dataset.answer"
    )


def _wrong(column: str, value: object) -> str | None:
    """Why a value cannot be a question or an answer; None if it can."""
    if _missing(value):
        return f"the {column} is missing"
    if not isinstance(value, str):
        return f"the {column} is {kind(value)}, not text"
    if not value.strip():
        return f"the {column} is empty"
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        return f"the {column} holds half a surrogate pair, which is no character"
    return None


def _missing(value: object) -> bool:
    return value is None or (isinstance(value, float) and value != value)


def _plain(value: object) -> object:
    """A value as a UTF-8 file of JSON can hold it, for rejected.jsonl; half a surrogate pair is spelled out."""
    if _missing(value):
        return None
    if isinstance(value, dict):
        return {_plain(str(key)): _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return value if isinstance(value, int | float) else str(value).encode("utf-8", "backslashreplace").decode()


def _listed(names: Iterable[str]) -> str:
    """Names of columns. Those of a file without a header are texts of its first row, so secrets may be among them."""
    shown = [str(masked(name)) for name in names]
    cut = [repr(name if len(name) <= 60 else name[:57] + "...") for name in shown[:30]]
    return ", ".join(cut) + (f" and {len(shown) - 30} more" if len(shown) > 30 else "") or "no columns"
