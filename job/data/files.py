"""Files: reads a file of rows as chunks of columns, with the values as written; decompresses gzip and Zstandard.

It knows the formats and what can be wrong with a file. It does not know which columns are needed: the caller chooses,
and only those columns of a Parquet file are read. One chunk is in memory at a time, except for .json, whose array is
read whole, and for a compressed Parquet file.
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
COMPRESSED = (".gz", ".zst")
DELIMITERS = ",;\t|"
CHUNK_ROWS = 10_000
EXPECTED_ROWS = 'expected an array of rows such as [{"question": "...", "answer": "..."}]'
_MAX_DEPTH = 50
"""Levels of lists and objects in a value. What lies deeper is cut, since the functions that read values recurse."""
_UNREADABLE_JSON = "nested too deeply, or a number with thousands of digits"


@dataclass(frozen=True)
class Chunk:
    """Some rows of a file."""

    locations: list[str]
    """Where each row stands in the file, such as "line 7"."""
    columns: dict[str, list[Any]]
    """The columns that were read, with the values as found; each as long as `locations`."""
    names: list[str]
    """The names of all columns of the file."""

    def __post_init__(self) -> None:
        for values in self.columns.values():
            for row, value in enumerate(values):
                if isinstance(value, dict | list) and _is_deeper(value, _MAX_DEPTH):
                    values[row] = _truncate(value, _MAX_DEPTH)

    def select_rows(self, rows: Sequence[int]) -> "Chunk":
        """Take some rows of the chunk, by their positions in it."""
        columns = {name: [values[row] for row in rows] for name, values in self.columns.items()}
        return Chunk([self.locations[row] for row in rows], columns, self.names)


Choose = Callable[[pa.Schema], list[str]]
"""Chooses columns: from those of a file to the names of those to read."""


def paths(files: str | list[str]) -> list[Path]:
    """List the files that paths and globs name, each once, in a fixed order.

    Raises:
        DataError: a glob matches nothing. A path that does not exist fails when it is read.
    """
    matched: dict[Path, None] = {}
    for name in [files] if isinstance(files, str) else files:
        plain = Path(name).exists() or not glob.has_magic(name)
        matches = [name] if plain else sorted(glob.glob(name, recursive=True))  # noqa: PTH207, it may be absolute
        if not matches:
            raise DataError(f"{name}: no file matches (paths are relative to the folder the command runs in)")
        matched.update(dict.fromkeys(map(Path, matches)))
    return list(matched)


def fingerprint(path: Path) -> str:
    """Hash a file's bytes with SHA-256, in hexadecimal.

    Raises:
        DataError: the file cannot be read.
    """
    try:
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise _read_error(path, error) from None


def read(path: Path, choose: Choose) -> Iterator[Chunk]:
    """Read the rows of a file, chunk by chunk.

    Args:
        path: of the file; its extension tells the format.
        choose: chooses the columns to read, of a format that lists its columns first, which is Parquet.

    Raises:
        DataError: the file cannot be read in the format of its extension; with the line where there is one.
    """
    suffix = _format_suffix(path)
    if suffix not in FORMATS and path.is_file():
        raise DataError(
            f"{path}: found {suffix or 'no'} extension, expected one of {', '.join(FORMATS)}, "
            f"which may be compressed as {' or '.join(COMPRESSED)}"
        )
    try:
        yield from _read_parquet(path, choose) if suffix == ".parquet" else _READERS[suffix](path)
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 text (byte {error.start}); save the file as UTF-8") from None
    except OSError as error:
        raise _read_error(path, error) from None


def _format_suffix(path: Path) -> str:
    return Path(path.stem).suffix.lower() if path.suffix.lower() in COMPRESSED else path.suffix.lower()


def _open_bytes(path: Path) -> Any:
    """The file's bytes as a stream, decompressed."""
    if path.suffix.lower() == ".gz":
        return pa.CompressedInputStream(pa.OSFile(str(path)), "gzip")
    if path.suffix.lower() == ".zst":
        return pa.CompressedInputStream(pa.OSFile(str(path)), "zstd")
    return path.open("rb")


def _open_text(path: Path) -> io.TextIOWrapper:
    return io.TextIOWrapper(_open_bytes(path), encoding="utf-8-sig", newline="")


def _read_json(path: Path) -> Iterator[Chunk]:
    with _open_text(path) as stream:
        text = stream.read()
    try:
        rows = json.loads(text)
    except json.JSONDecodeError as error:
        raise DataError(f"{path}:{error.lineno}:{error.colno}: not valid JSON: {error.msg}{_json_hint(text)}") from None
    except (RecursionError, ValueError):
        raise DataError(f"{path}: {_UNREADABLE_JSON}; {EXPECTED_ROWS}") from None
    if not isinstance(rows, list):
        raise DataError(f"{path}: found {type_name(rows)}, {EXPECTED_ROWS}")
    for start in range(0, len(rows), CHUNK_ROWS):
        part = rows[start : start + CHUNK_ROWS]
        yield _chunk([f"row {number}" for number in range(start + 1, start + len(part) + 1)], part)


def _read_jsonl(path: Path) -> Iterator[Chunk]:
    locations: list[str] = []
    rows: list[Any] = []
    with _open_text(path) as stream:
        for number, line in enumerate(stream, 1):
            if line.strip():
                try:
                    rows.append(json.loads(line))
                except (ValueError, RecursionError) as error:
                    message = getattr(error, "msg", _UNREADABLE_JSON)
                    raise DataError(
                        f"{path}:{number}: not valid JSON: {message}; expected one object per line"
                    ) from None
                locations.append(f"line {number}")
            if len(rows) == CHUNK_ROWS:
                yield _chunk(locations, rows)
                locations, rows = [], []
    if rows:
        yield _chunk(locations, rows)


def _read_csv(path: Path) -> Iterator[Chunk]:
    with _open_text(path) as stream:
        header = stream.readline()
    delimiter = max(DELIMITERS, key=lambda character: (header.count(character), character == ","))
    first = 1
    try:
        with warnings.catch_warnings(), _open_text(path) as stream:
            # without index_col=False an extra field would shift the columns; with it, pandas warns
            warnings.simplefilter("error", pd.errors.ParserWarning)
            for frame in pd.read_csv(
                stream,
                sep=delimiter,
                dtype=str,
                keep_default_na=False,
                quoting=csv.QUOTE_MINIMAL,
                index_col=False,
                chunksize=CHUNK_ROWS,
            ):
                locations = [f"row {number}" for number in range(first, first + len(frame))]
                if locations:  # a file of the header alone gives an empty frame
                    columns = {str(name): frame[name].tolist() for name in frame.columns}
                    yield Chunk(locations, columns, list(columns))
                first += len(frame)
    except pd.errors.ParserWarning:
        raise DataError(
            f"{path}: the rows have more fields than the first line; quote texts that contain {delimiter!r}"
        ) from None
    except pd.errors.EmptyDataError:
        return
    except pd.errors.ParserError as error:
        raise DataError(
            f"{path}: not valid CSV with the delimiter {delimiter!r} of its first line: {str(error).strip()}"
        ) from None


def _read_parquet(path: Path, choose: Choose) -> Iterator[Chunk]:
    first = 1
    is_compressed = path.suffix.lower() in COMPRESSED
    try:
        with _open_bytes(path) as stream:
            file = pq.ParquetFile(io.BytesIO(stream.read()) if is_compressed else stream)
            names = file.schema_arrow.names
            for batch in file.iter_batches(CHUNK_ROWS, columns=choose(_mark_empty_columns(file))):
                locations = [f"row {number}" for number in range(first, first + batch.num_rows)]
                yield Chunk(locations, batch.to_pydict(), names)
                first += batch.num_rows
    except pa.ArrowException as error:
        raise DataError(f"{path}: not a Parquet file: {error}") from None


def _mark_empty_columns(file: pq.ParquetFile) -> pa.Schema:
    """The file's columns, with the type null for those that are empty by their statistics."""
    schema, metadata = file.schema_arrow, file.metadata
    filled = set()
    for group in range(metadata.num_row_groups):
        for number in range(metadata.num_columns):
            leaf = metadata.row_group(group).column(number)
            nulls = leaf.statistics.null_count if leaf.statistics and leaf.statistics.has_null_count else None
            if nulls != leaf.num_values:
                filled.add(metadata.schema.column(number).path.split(".")[0])
    return pa.schema(
        [column if column.name.split(".")[0] in filled else column.with_type(pa.null()) for column in schema]
    )


_READERS = {".json": _read_json, ".jsonl": _read_jsonl, ".csv": _read_csv}


def _chunk(locations: list[str], rows: list[Any]) -> Chunk:
    """Parsed rows as columns; a row that is not an object becomes one without values."""
    names = list(dict.fromkeys(name for row in rows if isinstance(row, dict) for name in row))
    columns = {name: [row.get(name) if isinstance(row, dict) else None for row in rows] for name in names}
    return Chunk(locations, columns, names)


def _is_deeper(value: dict[Any, Any] | list[Any], levels: int) -> bool:
    inner = value.values() if isinstance(value, dict) else value
    return any(isinstance(item, dict | list) and (levels == 0 or _is_deeper(item, levels - 1)) for item in inner)


def _truncate(value: object, levels: int) -> object:
    """The value, with "..." in place of what lies deeper."""
    if not isinstance(value, dict | list):
        return value
    if levels < 0:
        return "..."
    if isinstance(value, dict):
        return {key: _truncate(item, levels - 1) for key, item in value.items()}
    return [_truncate(item, levels - 1) for item in value]


def type_name(value: object) -> str:
    """Name the type of a JSON value in plain words, such as "a list"."""
    names = {dict: "an object", list: "a list", bool: "true or false", int: "a number", float: "a number", str: "text"}
    return "null" if value is None else names.get(type(value), type(value).__name__)


def _json_hint(text: str) -> str:
    if not text:
        return f" (the file is empty); {EXPECTED_ROWS}"
    if text[0] == "{" and text[-1] != "]":
        return "; one object per line is the .jsonl format: rename the file"
    return f"; was the file cut off? {EXPECTED_ROWS}"


def _read_error(path: Path, error: OSError) -> DataError:
    if path.is_dir():
        return DataError(f"{path}: is a folder; expected a file: {', '.join(FORMATS)}")
    if isinstance(error, FileNotFoundError):
        return DataError(f"{path}: no such file (paths are relative to the folder the command runs in)")
    return DataError(f"{path}: cannot be read ({error.strerror or error})")
