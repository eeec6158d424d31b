"""Files: from a file of rows to chunks of columns, as they were written; gzip and Zstandard are unpacked on the way.

It knows the formats and what can be wrong with a file. It does not know which columns are wanted: it asks, and of a
Parquet file it reads no others. Only a chunk is in memory at a time, but for .json, whose array is read whole, and for
a Parquet file that is packed once more.
"""

import csv
import glob
import hashlib
import io
import json
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from job.errors import DataError

FORMATS = (".json", ".jsonl", ".csv", ".parquet")
PACKED = (".gz", ".zst")
DELIMITERS = ",;\t|"
CHUNK = 10_000
WANTED = 'expected an array of rows such as [{"question": "...", "answer": "..."}]'
_DEEPEST = 50
"""Levels of lists and objects in a value; what lies deeper is cut, since whoever looks into it goes level by level."""
_UNREADABLE_JSON = "nested too deeply, or a number of thousands of digits"


@dataclass(frozen=True)
class Chunk:
    """Rows of a file: the place of each in it, the columns that were read, values as they were found, and all names."""

    places: list[str]
    columns: dict[str, list[Any]]
    names: list[str]

    def __post_init__(self) -> None:
        for values in self.columns.values():
            for row, value in enumerate(values):
                if isinstance(value, dict | list) and _is_deeper(value, _DEEPEST):
                    values[row] = _cut(value, _DEEPEST)

    def taken(self, rows: Sequence[int]) -> "Chunk":
        """Some of the rows."""
        columns = {name: [values[row] for row in rows] for name, values in self.columns.items()}
        return Chunk([self.places[row] for row in rows], columns, self.names)


Choose = Callable[[pa.Schema], list[str]]
"""From the columns that there are to the names of those that shall be read."""


def paths(files: str | list[str]) -> list[Path]:
    """The files that paths and globs name, each once, in a fixed order.

    Raises:
        DataError: a glob that matches nothing. A path that does not exist is found out when it is read.
    """
    found: dict[Path, None] = {}
    for name in [files] if isinstance(files, str) else files:
        plain = Path(name).exists() or not glob.has_magic(name)
        matches = [name] if plain else sorted(glob.glob(name, recursive=True))  # noqa: PTH207, it may be absolute
        if not matches:
            raise DataError(f"{name}: no file matches (paths are taken from the folder the command runs in)")
        found.update(dict.fromkeys(map(Path, matches)))
    return list(found)


def fingerprint(path: Path) -> str:
    """SHA-256 of a file's bytes, by which a resumed run sees that its data has changed."""
    try:
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise _unreadable(path, error) from None


def read(path: Path, choose: Choose) -> Iterator[Chunk]:
    """The rows of a file, chunk after chunk.

    Args:
        choose: the columns to read; asked where the format knows them beforehand, which Parquet does.

    Raises:
        DataError: it cannot be read as what its name says it is; with the line where there is one.
    """
    suffix = _format(path)
    if suffix not in FORMATS and path.is_file():
        raise DataError(
            f"{path}: found {suffix or 'no'} extension, expected one of {', '.join(FORMATS)}, "
            f"which may be packed as {' or '.join(PACKED)}"
        )
    try:
        yield from _parquet(path, choose) if suffix == ".parquet" else _READERS[suffix](path)
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 text (byte {error.start}); save the file as UTF-8") from None
    except OSError as error:
        raise _unreadable(path, error) from None


def _format(path: Path) -> str:
    return Path(path.stem).suffix.lower() if path.suffix.lower() in PACKED else path.suffix.lower()


def _bytes(path: Path) -> Any:
    """The file's bytes as a stream, unpacked."""
    if path.suffix.lower() == ".gz":
        return pa.CompressedInputStream(pa.OSFile(str(path)), "gzip")
    if path.suffix.lower() == ".zst":
        return pa.CompressedInputStream(pa.OSFile(str(path)), "zstd")
    return path.open("rb")


def _lines(path: Path) -> io.TextIOWrapper:
    return io.TextIOWrapper(_bytes(path), encoding="utf-8-sig", newline="")


def _json(path: Path) -> Iterator[Chunk]:
    with _lines(path) as stream:
        text = stream.read()
    try:
        rows = json.loads(text)
    except json.JSONDecodeError as error:
        raise DataError(f"{path}:{error.lineno}:{error.colno}: not valid JSON: {error.msg}{_json_hint(text)}") from None
    except (RecursionError, ValueError):
        raise DataError(f"{path}: {_UNREADABLE_JSON}; {WANTED}") from None
    if not isinstance(rows, list):
        raise DataError(f"{path}: found {kind(rows)}, {WANTED}")
    for start in range(0, len(rows), CHUNK):
        part = rows[start : start + CHUNK]
        yield _chunk([f"row {number}" for number in range(start + 1, start + len(part) + 1)], part)


def _jsonl(path: Path) -> Iterator[Chunk]:
    places: list[str] = []
    rows: list[Any] = []
    with _lines(path) as stream:
        for number, line in enumerate(stream, 1):
            if line.strip():
                try:
                    rows.append(json.loads(line))
                except (ValueError, RecursionError) as error:
                    message = getattr(error, "msg", _UNREADABLE_JSON)
                    raise DataError(
                        f"{path}:{number}: not valid JSON: {message}; expected one object to a line"
                    ) from None
                places.append(f"line {number}")
            if len(rows) == CHUNK:
                yield _chunk(places, rows)
                places, rows = [], []
    if rows:
        yield _chunk(places, rows)


def _csv(path: Path) -> Iterator[Chunk]:
    with _lines(path) as stream:
        header = stream.readline()
    delimiter = max(DELIMITERS, key=lambda character: (header.count(character), character == ","))
    first = 1
    try:
        with warnings.catch_warnings(), _lines(path) as stream:
            # without index_col=False a field too many would shift the columns; with it, that is only a warning
            warnings.simplefilter("error", pd.errors.ParserWarning)
            for frame in pd.read_csv(
                stream,
                sep=delimiter,
                dtype=str,
                keep_default_na=False,
                quoting=csv.QUOTE_MINIMAL,
                index_col=False,
                chunksize=CHUNK,
            ):
                places = [f"row {number}" for number in range(first, first + len(frame))]
                if places:  # the first line alone makes an empty frame
                    columns = {str(name): frame[name].tolist() for name in frame.columns}
                    yield Chunk(places, columns, list(columns))
                first += len(frame)
    except pd.errors.ParserWarning:
        raise DataError(
            f"{path}: the rows have more fields than the first line; put quotes around a text that holds {delimiter!r}"
        ) from None
    except pd.errors.EmptyDataError:
        return
    except pd.errors.ParserError as error:
        raise DataError(
            f"{path}: not valid CSV with the delimiter {delimiter!r} of its first line: {str(error).strip()}"
        ) from None


def _parquet(path: Path, choose: Choose) -> Iterator[Chunk]:
    first = 1
    packed = path.suffix.lower() in PACKED
    try:
        with _bytes(path) as stream:
            file = pq.ParquetFile(io.BytesIO(stream.read()) if packed else stream)
            names = file.schema_arrow.names
            for batch in file.iter_batches(CHUNK, columns=choose(_filled(file))):
                places = [f"row {number}" for number in range(first, first + batch.num_rows)]
                yield Chunk(places, batch.to_pydict(), names)
                first += batch.num_rows
    except pa.ArrowException as error:
        raise DataError(f"{path}: not a Parquet file: {error}") from None


def _filled(file: pq.ParquetFile) -> pa.Schema:
    """The file's columns; one whose statistics say that it holds nothing has the type null."""
    schema, found = file.schema_arrow, file.metadata
    full = set()
    for group in range(found.num_row_groups):
        for number in range(found.num_columns):
            leaf = found.row_group(group).column(number)
            nulls = leaf.statistics.null_count if leaf.statistics and leaf.statistics.has_null_count else None
            if nulls != leaf.num_values:
                full.add(found.schema.column(number).path.split(".")[0])
    return pa.schema(
        [column if column.name.split(".")[0] in full else column.with_type(pa.null()) for column in schema]
    )


_READERS = {".json": _json, ".jsonl": _jsonl, ".csv": _csv}


def _chunk(places: list[str], rows: list[Any]) -> Chunk:
    """Rows as parsed, as columns; what is no object becomes a row without any value."""
    names = list(dict.fromkeys(name for row in rows if isinstance(row, dict) for name in row))
    columns = {name: [row.get(name) if isinstance(row, dict) else None for row in rows] for name in names}
    return Chunk(places, columns, names)


def _is_deeper(value: dict[Any, Any] | list[Any], levels: int) -> bool:
    inner = value.values() if isinstance(value, dict) else value
    return any(isinstance(item, dict | list) and (levels == 0 or _is_deeper(item, levels - 1)) for item in inner)


def _cut(value: object, levels: int) -> object:
    """The value with "..." in the place of what lies deeper."""
    if not isinstance(value, dict | list):
        return value
    if levels < 0:
        return "..."
    if isinstance(value, dict):
        return {key: _cut(item, levels - 1) for key, item in value.items()}
    return [_cut(item, levels - 1) for item in value]


def kind(value: object) -> str:
    """What a value is, for people."""
    kinds = {dict: "an object", list: "a list", bool: "true or false", int: "a number", float: "a number", str: "text"}
    return "null" if value is None else kinds.get(type(value), type(value).__name__)


def _json_hint(text: str) -> str:
    if not text:
        return f" (the file is empty); {WANTED}"
    if text[0] == "{" and text[-1] != "]":
        return "; one object to a line is the .jsonl format: rename the file"
    return f"; was the file cut off? {WANTED}"


def _unreadable(path: Path, error: OSError) -> DataError:
    if path.is_dir():
        return DataError(f"{path}: is a folder; expected a file: {', '.join(FORMATS)}")
    if isinstance(error, FileNotFoundError):
        return DataError(f"{path}: no such file (paths are taken from the folder the command runs in)")
    return DataError(f"{path}: cannot be read ({error.strerror or error})")
