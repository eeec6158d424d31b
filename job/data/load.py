"""Load: reads files and Hub data sets into rows with a question, an answer and their location in the source.

It knows sources, column names and what a row must have: two texts. It does not know whether they are good; that is
clean's work. The rows go to disk as they are read, so they may exceed memory. A rejected row carries its texts as they
were found, with secrets redacted.
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
from job.data.credentials import redact_value
from job.data.draw import Draw
from job.data.files import EXPECTED_ROWS, Choose, Chunk, type_name
from job.data.hub_rows import HubDataset
from job.data.rows import write
from job.data.unused_columns import UnusedColumns
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
"""`id` numbers the rows from 0; `group` is the value in split.group's column, or null."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Source:
    """A file or a Hub data set to read, and what the config says about it."""

    read: Callable[[Choose], Iterator[Chunk]]
    name: str
    """By which the locations of its rows begin."""
    source: str
    """Its path, or its name on the Hub."""
    origin: dict[str, str | None]
    """SHA-256 of a file; commit, configuration and split of a data set."""
    question: str | None
    answer: str | None
    ignored: tuple[str, ...]
    draw: Draw
    names: dict[str, None] = field(default_factory=dict)
    """Its columns, added as they are met."""


def load(
    section: DatasetSection, folder: Path, seed: int, group: str | None = None
) -> tuple[datasets.Dataset, datasets.Dataset | None, list[Rejection], list[Source]]:
    """Read the rows that the config names.

    Args:
        section: the config's section dataset.
        folder: where the rows are written, as Arrow files.
        seed: of the draw from a source with a weight below 1.
        group: the column of split.group, which is read too.

    Returns:
        The rows, with SCHEMA and non-empty texts; the separate test rows, or None; the rejected rows; and what was
        read of each source.

    Raises:
        DataError: a file or data set cannot be read, its columns are not recognised, or an unused column is needed.
        ConfigError: a column that the config names does not exist.
    """
    sources = list(_sources(section, seed))
    tests = list(_file_sources(section.test, section, section, Draw(1.0, []))) if section.test is not None else []
    rejected: list[Rejection] = []
    facts: list[Source] = []
    unused = UnusedColumns(asks=all(source.question is None for source in sources))
    rows = write(folder / "loaded.arrow", SCHEMA, _batches(sources, 0, group, rejected, facts, unused))
    test = None
    if section.test is not None:
        first = sum(source.rows for source in facts)
        test = write(folder / "test.arrow", SCHEMA, _batches(tests, first, None, rejected, facts, unused))
    _require_drawn(sources)
    _require_ignored([*sources, *tests], section)
    needed, remarks = unused.find_needed()
    if needed:
        raise DataError(unused_columns.refusal(needed))
    for remark in remarks:
        log.warning(f"load: {remark}")
    return rows, test, rejected, facts


def _sources(section: DatasetSection, seed: int) -> Iterator[_Source]:
    sections: tuple[SourceSection | DatasetSection, ...] = section.sources or (section,)
    for number, source in enumerate(sections):
        draw = Draw(getattr(source, "weight", 1.0), [seed, number])
        if source.file is not None:
            yield from _file_sources(source.file, source, section, draw)
        else:
            yield _hub_source(source, section, draw)


def _file_sources(
    named: str | list[str], source: SourceSection | DatasetSection, section: DatasetSection, draw: Draw
) -> Iterator[_Source]:
    names = [path.name for path in local_files.paths(section)]
    for path in files.paths(named):
        yield _Source(
            partial(files.read, path),
            # train/qa.json and test/qa.json: the name alone would give two rows the same location
            path.name if names.count(path.name) == 1 else str(path),
            str(path),
            {"sha256": files.fingerprint(path)},
            *_named_columns(source, section),
            draw,
        )


def _hub_source(source: SourceSection | DatasetSection, section: DatasetSection, draw: Draw) -> _Source:
    name = str(source.name)
    loaded, commit = hub_rows.load(HubDataset(name, source.config, source.revision, source.split))
    origin = {"revision": commit, "config": source.config, "split": source.split}
    read = partial(hub_rows.chunks, loaded, source.split)
    return _Source(read, name, name, origin, *_named_columns(source, section), draw)


def _named_columns(
    source: SourceSection | DatasetSection, section: DatasetSection
) -> tuple[str | None, str | None, tuple[str, ...]]:
    """The columns of question and answer, if the config names them, and those to ignore."""
    ignored = tuple(dict.fromkeys((*section.ignore_columns, *source.ignore_columns)))
    return source.question or section.question, source.answer or section.answer, ignored


def _batches(
    sources: list[_Source],
    first: int,
    group: str | None,
    rejected: list[Rejection],
    facts: list[Source],
    unused: UnusedColumns,
) -> Iterator[dict[str, list[Any]]]:
    """Yield the rows of every source as columns of SCHEMA; add to `rejected`, `facts` and `unused`."""
    for source in sources:
        start, not_drawn, used = first, source.draw.not_drawn, None
        choose = partial(_choose_columns, source, group, unused)
        for chunk in source.draw.sample(source.read(choose)):
            source.names.update(dict.fromkeys(chunk.names))
            used = used or _find_pair(chunk.names, source, group)
            kept = _valid_rows(chunk, source.name, used, group, first, rejected)
            others = {key: chunk.columns[key] for key in chunk.columns if key not in (*used, group, *source.ignored)}
            _add_unused(kept, others, first, unused)
            yield kept
            first += len(chunk.locations)
        if used is None:
            raise DataError(f"{source.source}: has no rows; {EXPECTED_ROWS}")
        question, answer = used
        unused_names = [str(redact_value(name)) for name in source.names if name not in (*used, group)]
        not_drawn_here = source.draw.not_drawn - not_drawn if source.draw.weight < 1 else None
        facts.append(
            Source(
                source.source, question, answer, unused_names, first - start, **source.origin, not_drawn=not_drawn_here
            )
        )


def _choose_columns(source: _Source, group: str | None, unused: UnusedColumns, schema: pa.Schema) -> list[str]:
    """The columns to read: question, answer, group, and those that may show that the question needs them."""
    used = {*_find_pair(schema.names, source, group), group}
    others = pa.schema([column for column in schema if column.name not in used and column.name not in source.ignored])
    for name in column_types.media_columns(others):
        unused.add_media(name, source.source)
    chosen = {*used, *column_types.informative_columns(others)}
    return [name for name in schema.names if name in chosen]


def _add_unused(kept: dict[str, list[Any]], others: dict[str, list[Any]], first: int, unused: UnusedColumns) -> None:
    """Add the rows kept, with their unused columns, to `unused`."""
    positions = [id_ - first for id_ in kept["id"]]
    values_by_column = {name: [values[position] for position in positions] for name, values in others.items()}
    unused.add_rows(kept["question"], kept["answer"], kept["where"], values_by_column)


def _valid_rows(
    chunk: Chunk, name: str, used: tuple[str, str], group: str | None, first: int, rejected: list[Rejection]
) -> dict[str, list[Any]]:
    """The rows of a chunk that hold two texts; the others go to `rejected`."""
    missing = [None] * len(chunk.locations)
    questions, answers = (chunk.columns.get(column, missing) for column in used)
    groups = chunk.columns.get(group, missing) if group is not None else missing
    kept: dict[str, list[Any]] = {key: [] for key in SCHEMA.names}
    for number, (location, question, answer) in enumerate(zip(chunk.locations, questions, answers, strict=True)):
        where = f"{name} {location}"
        reason = _problem("question", question) or _problem("answer", answer)
        if reason is not None:
            shown = (redact_value(_json_safe(question)), redact_value(_json_safe(answer)))
            rejected.append(Rejection(where, "load", reason, shown=shown))
            continue
        value = groups[number]
        values = (question, answer, where, first + number, None if _is_missing(value) else str(_json_safe(value)))
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
    """Refuse to ignore a column that does not exist: it is misspelt, and the intended one would not be ignored."""
    for name in dict.fromkeys(name for source in sources for name in source.ignored):
        owners = [source for source in sources if name in source.ignored]
        names = list(dict.fromkeys(column for source in owners for column in source.names))
        if name not in names:
            near = difflib.get_close_matches(name, names, n=1)
            guess = f"; did you mean {near[0]!r}?" if near else f"; found {_format_names(names)}"
            raise ConfigError(
                f"dataset.ignore_columns: {', '.join(source.source for source in owners)} has no column {name!r}{guess}"
            )


def _find_pair(names: list[str], source: _Source, group: str | None) -> tuple[str, str]:
    """The columns of question and answer: those that the config names, or a known pair of names."""
    if group is not None and group not in names:
        raise ConfigError(f"split.group: {source.source} has no column {group!r}; it has {_format_names(names)}")
    if source.question is not None and source.answer is not None:
        for key, column in (("question", source.question), ("answer", source.answer)):
            if column not in names:
                raise ConfigError(
                    f"dataset.{key}: {source.source} has no column {column!r}; it has {_format_names(names)}"
                )
        return source.question, source.answer
    by_lower = {name.strip().lower(): name for name in reversed(names) if name not in source.ignored}
    for question, answer in COLUMN_PAIRS:
        if question in by_lower and answer in by_lower:
            return by_lower[question], by_lower[answer]
    hint = " (is the delimiter one of , ; tab | ?)" if len(names) == 1 and ".csv" in source.source else ""
    raise DataError(
        f"{source.source}: cannot tell which columns to read: found {_format_names(names)}{hint}, "
        "expected question and answer; "
        "name yours with dataset.question and dataset.answer"
    )


def _problem(column: str, value: object) -> str | None:
    """Why a value cannot be a question or an answer; None if it can."""
    if _is_missing(value):
        return f"the {column} is missing"
    if not isinstance(value, str):
        return f"the {column} is {type_name(value)}, not text"
    if not value.strip():
        return f"the {column} is empty"
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        return f"the {column} contains half of a surrogate pair, which is not a character"
    return None


def _is_missing(value: object) -> bool:
    return value is None or (isinstance(value, float) and value != value)


def _json_safe(value: object) -> object:
    """The value as JSON in UTF-8 can hold it, for rejected.jsonl; half a surrogate pair becomes an escape."""
    if _is_missing(value):
        return None
    if isinstance(value, dict):
        return {_json_safe(str(key)): _json_safe(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_json_safe(item) for item in value]
    return value if isinstance(value, int | float) else str(value).encode("utf-8", "backslashreplace").decode()


def _format_names(names: Iterable[str]) -> str:
    """Column names for an error. Without a header they are the texts of the first row, which may hold secrets."""
    shown = [str(redact_value(name)) for name in names]
    shortened = [repr(name if len(name) <= 60 else name[:57] + "...") for name in shown[:30]]
    return ", ".join(shortened) + (f" and {len(shown) - 30} more" if len(shown) > 30 else "") or "no columns"
