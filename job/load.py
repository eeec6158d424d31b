"""Load: from files and Hub data sets to rows with a question, an answer and the place where they stood.

It knows sources, column names and what a row must have at the least: two texts. Repairing and judging them is clean's
work. The rows go to disk as they are read, so a data set may be larger than memory.

A rejected row is a dict {"where", "stage", "reason", "question", "answer"}, the last two as they were found.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
import httpx2
import numpy as np
import pyarrow as pa

from job import durable, files
from job.config import DatasetSection, SourceSection
from job.errors import ConfigError, DataError, KickoffError
from job.files import WANTED, Chunk, kind
from job.rows import write

COLUMN_PAIRS = (
    ("question", "answer"),
    ("prompt", "completion"),
    ("prompt", "response"),
    ("instruction", "output"),
    ("instruction", "response"),
    ("input", "output"),
    ("query", "response"),
)
SCHEMA = pa.schema(
    {"question": pa.string(), "answer": pa.string(), "where": pa.string(), "id": pa.int64(), "group": pa.string()}
)
"""`id` counts the rows in; `group` is the value of split.group's column, null without one."""

Rejected = list[dict[str, Any]]


@dataclass(frozen=True)
class _Source:
    """Something to read: its chunks, the name its rows are known by, and its facts."""

    chunks: Iterable[Chunk]
    name: str
    facts: dict[str, Any]
    question: str | None
    answer: str | None
    weight: float = 1.0


def load(
    section: DatasetSection, folder: Path, seed: int, group: str | None = None
) -> tuple[datasets.Dataset, datasets.Dataset | None, Rejected, list[dict[str, Any]]]:
    """Read what the config names.

    Args:
        folder: where the rows are written, as Arrow files.
        seed: of the draw, where a source has a weight below 1.
        group: a column to carry along, for the split.

    Returns:
        The rows with SCHEMA, question and answer non-empty text; the test rows given apart, or None; the rejected
        ones; and of each source its name, a revision or content hash, the columns used and unused, the row count.

    Raises:
        DataError: a file or data set cannot be read, or its columns cannot be told.
        ConfigError: a column that the config names is not there.
    """
    sources = list(_sources(section))
    tests = list(_files(section.test, section, section)) if section.test is not None else []
    rejected: Rejected = []
    facts: list[dict[str, Any]] = []
    rows = write(folder / "loaded.arrow", SCHEMA, _batches(sources, 0, group, rejected, facts))
    rows, not_drawn = _drawn(rows, sources, facts, seed)
    if section.test is None:
        return rows, None, rejected + not_drawn, facts
    first = sum(source["rows"] for source in facts)
    test = write(folder / "test.arrow", SCHEMA, _batches(tests, first, None, rejected, facts))
    return rows, test, rejected + not_drawn, facts


def fingerprints(section: DatasetSection) -> dict[str, str]:
    """SHA-256 of every local file that the config names, by the name under which `load` reports it."""
    return {str(path): files.fingerprint(path) for path in local_files(section)}


def local_files(section: DatasetSection) -> list[Path]:
    """Every local file that the config names, for training or testing."""
    named = [section.file, section.test, *(source.file for source in section.sources)]
    return [path for name in named if name is not None for path in files.paths(name)]


def _sources(section: DatasetSection) -> Iterator[_Source]:
    for source in section.sources or (section,):
        if source.file is not None:
            yield from _files(source.file, source, section)
        else:
            yield _hub(source, section)


def _files(
    named: str | list[str], source: SourceSection | DatasetSection, section: DatasetSection
) -> Iterator[_Source]:
    names = [path.name for path in local_files(section)]
    for path in files.paths(named):
        yield _Source(
            files.read(path),
            # train/qa.json and test/qa.json: the name alone would give two rows the same place
            path.name if names.count(path.name) == 1 else str(path),
            {"source": str(path), "sha256": files.fingerprint(path)},
            *_named_columns(source, section),
            getattr(source, "weight", 1.0),
        )


def _hub(source: SourceSection | DatasetSection, section: DatasetSection) -> _Source:
    from huggingface_hub import HfApi
    from huggingface_hub.errors import RepositoryNotFoundError, RevisionNotFoundError

    name = str(source.name)
    try:
        # the commit is looked up first, so that the card names exactly what was read
        sha = HfApi().dataset_info(name, revision=source.revision).sha
        loaded = datasets.load_dataset(name, source.config, revision=sha, split=source.split)
    except (RepositoryNotFoundError, datasets.exceptions.DatasetNotFoundError):
        raise DataError(
            f"dataset.name: no data set {name!r} on the Hub, or HF_TOKEN may not read it; check the name and the token"
        ) from None
    except RevisionNotFoundError:
        raise DataError(f"dataset.revision: {name} has no revision {source.revision!r}") from None
    except (datasets.exceptions.DatasetGenerationError, datasets.exceptions.DataFilesNotFoundError) as error:
        raise DataError(f"dataset.name: {name}@{sha} cannot be read: {error.__cause__ or error}") from None
    except ValueError as error:  # an unknown split or configuration; the message lists the known ones
        raise DataError(f"dataset: {name}: {error}") from None
    except (httpx2.HTTPError, OSError) as error:
        if durable.is_full(error):
            raise
        raise KickoffError(f"the Hub did not give the data set {name}: {error}; run the same command again") from None
    facts = {"source": name, "revision": sha, "config": source.config, "split": source.split}
    columns = _named_columns(source, section)
    return _Source(_hub_chunks(loaded, source.split), name, facts, *columns, getattr(source, "weight", 1.0))


def _hub_chunks(loaded: datasets.Dataset, split: str) -> Iterator[Chunk]:
    first = 1
    for columns in loaded.with_format(None).iter(files.CHUNK):
        count = len(next(iter(columns.values())))
        yield Chunk([f"{split} row {number}" for number in range(first, first + count)], columns)
        first += count


def _named_columns(source: SourceSection | DatasetSection, section: DatasetSection) -> tuple[str | None, str | None]:
    return source.question or section.question, source.answer or section.answer


def _batches(
    sources: list[_Source], first: int, group: str | None, rejected: Rejected, facts: list[dict[str, Any]]
) -> Iterator[dict[str, list[Any]]]:
    """Every source's rows as columns of SCHEMA; what is rejected and the facts go to the lists given."""
    for source in sources:
        start, used, unused = first, None, dict[str, None]()
        for chunk in source.chunks:
            names = list(chunk.columns)
            if used is None and group is not None and group not in names:
                raise ConfigError(
                    f"split.group: {source.facts['source']} has no column {group!r}; it has {_listed(names)}"
                )
            used = used or _columns(names, source)
            unused |= dict.fromkeys(name for name in names if name not in (*used, group))
            yield _kept(chunk, source.name, used, group, first, rejected)
            first += len(chunk.places)
        if used is None:
            raise DataError(f"{source.facts['source']}: holds no row; {WANTED}")
        question, answer = used
        counted = {"question": question, "answer": answer, "unused": list(unused), "rows": first - start}
        facts.append({**source.facts, **counted})


def _kept(
    chunk: Chunk, name: str, used: tuple[str, str], group: str | None, first: int, rejected: Rejected
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
            found = {"question": _plain(question), "answer": _plain(answer)}
            rejected.append({"where": where, "stage": "load", "reason": reason, **found})
            continue
        value = groups[number]
        values = (question, answer, where, first + number, None if _missing(value) else str(_plain(value)))
        for key, item in zip(kept, values, strict=True):
            kept[key].append(item)
    return kept


def _drawn(
    rows: datasets.Dataset, sources: list[_Source], facts: list[dict[str, Any]], seed: int
) -> tuple[datasets.Dataset, Rejected]:
    """Of each source the share that its weight says, drawn by seed."""
    if all(source.weight == 1 for source in sources):
        return rows, []
    ids = rows.with_format("numpy")["id"][:]
    left_out: list[np.ndarray] = []
    first = 0
    for number, (source, fact) in enumerate(zip(sources, facts, strict=True)):
        inside = np.flatnonzero((ids >= first) & (ids < first + fact["rows"]))
        order = np.random.default_rng([seed, number]).permutation(inside)
        left_out.append(order[round(source.weight * len(inside)) :])
        first += fact["rows"]
    dropped = np.sort(np.concatenate(left_out))
    rejected = [
        {"where": row["where"], "stage": "load", "reason": "not drawn: its source has a weight below 1"}
        | {"question": row["question"], "answer": row["answer"]}
        for row in rows.select(dropped)
    ]
    return rows.select(np.setdiff1d(np.arange(len(rows)), dropped)), rejected


def _columns(names: list[str], source: _Source) -> tuple[str, str]:
    name = source.facts["source"]
    if source.question is not None and source.answer is not None:
        for key, column in (("question", source.question), ("answer", source.answer)):
            if column not in names:
                raise ConfigError(f"dataset.{key}: {name} has no column {column!r}; it has {_listed(names)}")
        return source.question, source.answer
    by_lower = {name.strip().lower(): name for name in reversed(names)}
    for question, answer in COLUMN_PAIRS:
        if question in by_lower and answer in by_lower:
            return by_lower[question], by_lower[answer]
    hint = " (is the delimiter one of , ; tab | ?)" if len(names) == 1 and ".csv" in name else ""
    raise DataError(
        f"{name}: cannot tell the columns: found {_listed(names)}{hint}, expected question and answer; "
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
    return ", ".join(repr(name) for name in names) or "no columns"
