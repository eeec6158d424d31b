"""Load: from a file or a Hub data set to rows with a question, an answer and the place where they stood.

It knows file formats and column names. It does not know what makes a good row beyond there being two texts:
repairing and judging them is clean's work.

A rejected row is a dict {"where", "stage", "reason", "question", "answer"}, the last two as they were found.
"""

import csv
import hashlib
import json
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import datasets
import httpx2
import pandas as pd

from job import durable
from job.config import DatasetSection
from job.errors import ConfigError, DataError, KickoffError

COLUMN_PAIRS = (
    ("question", "answer"),
    ("prompt", "completion"),
    ("prompt", "response"),
    ("instruction", "output"),
    ("instruction", "response"),
    ("input", "output"),
    ("query", "response"),
)
FORMATS = (".json", ".jsonl", ".csv", ".parquet")
DELIMITERS = ",;\t|"

Rejected = list[dict[str, Any]]


def load(section: DatasetSection) -> tuple[datasets.Dataset, Rejected, dict[str, Any]]:
    """Read the data set that the config names.

    Returns:
        The rows {"question", "answer", "where"}, all non-empty text; the rejected ones; and the facts of the
        source: its name, a revision or content hash, the columns used and those left unused, and the row count.

    Raises:
        DataError: the file or data set cannot be read, or its columns cannot be told.
    """
    if section.file is not None:
        return _load_file(Path(section.file), section)
    return _load_hub(section)


def load_test(section: DatasetSection) -> tuple[datasets.Dataset, Rejected, dict[str, Any]] | None:
    """Read `dataset.test`, in the same way as the data set itself; None if the config has none."""
    return _load_file(Path(section.test), section) if section.test is not None else None


def fingerprint(file: str) -> str:
    """SHA-256 of a file's bytes, by which a resumed run sees that its data has changed."""
    try:
        with Path(file).open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise _unreadable(Path(file), error) from None


def _load_file(path: Path, section: DatasetSection) -> tuple[datasets.Dataset, Rejected, dict[str, Any]]:
    if path.suffix.lower() not in FORMATS and path.is_file():
        raise DataError(f"{path}: found {path.suffix or 'no'} extension, expected one of {', '.join(FORMATS)}")
    source = {"source": str(path), "sha256": fingerprint(str(path))}
    # train/qa.json and test/qa.json: the name alone would give two rows the same place
    both = [Path(file).name for file in (section.file, section.test) if file is not None]
    name = path.name if len(set(both)) == len(both) else str(path)
    try:
        places, columns = _READERS[path.suffix.lower()](path)
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 text (byte {error.start}); save the file as UTF-8") from None
    return _rows(name, places, columns, section, source)


def _read_json(path: Path) -> tuple[list[str], pd.DataFrame]:
    text = path.read_text(encoding="utf-8-sig")
    try:
        rows = json.loads(text)
    except json.JSONDecodeError as error:
        raise DataError(f"{path}:{error.lineno}:{error.colno}: not valid JSON: {error.msg}{_json_hint(path)}") from None
    except (RecursionError, ValueError):
        raise DataError(f"{path}: {_UNREADABLE_JSON}; {_WANTED}") from None
    if not isinstance(rows, list):
        raise DataError(f"{path}: found {_kind(rows)}, {_WANTED}")
    return [f"row {number}" for number in range(1, len(rows) + 1)], _frame(rows)


def _read_jsonl(path: Path) -> tuple[list[str], pd.DataFrame]:
    places, rows = [], []
    with path.open(encoding="utf-8-sig") as stream:
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
    return places, _frame(rows)


def _read_csv(path: Path) -> tuple[list[str], pd.DataFrame]:
    with path.open(encoding="utf-8-sig", newline="") as stream:
        header = stream.readline()
    delimiter = max(DELIMITERS, key=lambda character: (header.count(character), character == ","))
    try:
        with warnings.catch_warnings():
            # without index_col=False a field too many would shift the columns; with it, that is only a warning
            warnings.simplefilter("error", pd.errors.ParserWarning)
            frame = pd.read_csv(
                path,
                sep=delimiter,
                dtype=str,
                keep_default_na=False,
                encoding="utf-8-sig",
                quoting=csv.QUOTE_MINIMAL,
                index_col=False,
            )
    except pd.errors.ParserWarning:
        raise DataError(
            f"{path}: the rows have more fields than the first line; put quotes around a text that holds {delimiter!r}"
        ) from None
    except pd.errors.EmptyDataError:
        frame = pd.DataFrame()
    except pd.errors.ParserError as error:
        raise DataError(
            f"{path}: not valid CSV with the delimiter {delimiter!r} of its first line: {str(error).strip()}"
        ) from None
    return [f"row {number}" for number in range(1, len(frame) + 1)], frame


def _read_parquet(path: Path) -> tuple[list[str], pd.DataFrame]:
    try:
        frame = pd.read_parquet(path)
    except (OSError, ValueError) as error:  # pyarrow's ArrowInvalid is a ValueError
        raise DataError(f"{path}: not a Parquet file: {error}") from None
    return [f"row {number}" for number in range(1, len(frame) + 1)], frame


_READERS = {".json": _read_json, ".jsonl": _read_jsonl, ".csv": _read_csv, ".parquet": _read_parquet}
_UNREADABLE_JSON = "nested too deeply, or a number of thousands of digits"
_WANTED = 'expected an array of rows such as [{"question": "...", "answer": "..."}]'


def _frame(rows: list[Any]) -> pd.DataFrame:
    """Rows as parsed into columns of Python objects; what is no object becomes a row without any value."""
    keys = dict.fromkeys(key for row in rows if isinstance(row, dict) for key in row)
    values = {key: [row.get(key) if isinstance(row, dict) else None for row in rows] for key in keys}
    return pd.DataFrame(values, index=range(len(rows)), dtype=object)


def _load_hub(section: DatasetSection) -> tuple[datasets.Dataset, Rejected, dict[str, Any]]:
    from huggingface_hub import HfApi
    from huggingface_hub.errors import RepositoryNotFoundError, RevisionNotFoundError

    name = str(section.name)
    try:
        # the commit is looked up first, so that the card names exactly what was read
        sha = HfApi().dataset_info(name, revision=section.revision).sha
        loaded = datasets.load_dataset(name, section.config, revision=sha, split=section.split)
    except (RepositoryNotFoundError, datasets.exceptions.DatasetNotFoundError):
        raise DataError(
            f"dataset.name: no data set {name!r} on the Hub, or HF_TOKEN may not read it; check the name and the token"
        ) from None
    except RevisionNotFoundError:
        raise DataError(f"dataset.revision: {name} has no revision {section.revision!r}") from None
    except (datasets.exceptions.DatasetGenerationError, datasets.exceptions.DataFilesNotFoundError) as error:
        raise DataError(f"dataset.name: {name}@{sha} cannot be read: {error.__cause__ or error}") from None
    except ValueError as error:  # an unknown split or configuration; the message lists the known ones
        raise DataError(f"dataset: {name}: {error}") from None
    except (httpx2.HTTPError, OSError) as error:
        if durable.is_full(error):
            raise
        raise KickoffError(f"the Hub did not give the data set {name}: {error}; run the same command again") from None
    frame = loaded.to_pandas()
    places = [f"{section.split} row {number}" for number in range(1, len(frame) + 1)]
    source = {"source": name, "revision": sha, "config": section.config, "split": section.split}
    return _rows(name, places, frame, section, source)


def _rows(
    name: str, places: list[str], columns: pd.DataFrame, section: DatasetSection, source: dict[str, Any]
) -> tuple[datasets.Dataset, Rejected, dict[str, Any]]:
    """Map the columns, and set aside every row without two texts."""
    if not places:
        raise DataError(f"{source['source']}: holds no row; {_WANTED}")
    columns.columns = [str(column) for column in columns.columns]  # pandas writes numbered columns to Parquet
    question, answer = _columns(list(columns.columns), section, source["source"])
    kept: dict[str, list[str]] = {"question": [], "answer": [], "where": []}
    rejected: Rejected = []
    for place, asked, answered in zip(places, columns[question], columns[answer], strict=True):
        where = f"{name} {place}"
        reason = _wrong("question", asked) or _wrong("answer", answered)
        if reason is not None:
            found = {"question": _plain(asked), "answer": _plain(answered)}
            rejected.append({"where": where, "stage": "load", "reason": reason, **found})
        else:
            for key, value in (("question", asked), ("answer", answered), ("where", where)):
                kept[key].append(value)
    unused = [column for column in columns.columns if column not in (question, answer)]
    facts = {**source, "question": question, "answer": answer, "unused": unused, "rows": len(places)}
    features = datasets.Features(dict.fromkeys(kept, datasets.Value("string")))
    return datasets.Dataset.from_dict(kept, features=features), rejected, facts


def _columns(names: list[str], section: DatasetSection, source: str) -> tuple[str, str]:
    if section.question is not None and section.answer is not None:
        for key, column in (("question", section.question), ("answer", section.answer)):
            if column not in names:
                raise ConfigError(f"dataset.{key}: {source} has no column {column!r}; it has {_listed(names)}")
        return section.question, section.answer
    by_lower = {name.strip().lower(): name for name in reversed(names)}
    for question, answer in COLUMN_PAIRS:
        if question in by_lower and answer in by_lower:
            return by_lower[question], by_lower[answer]
    hint = " (is the delimiter one of , ; tab | ?)" if len(names) == 1 and source.endswith(".csv") else ""
    raise DataError(
        f"{source}: cannot tell the columns: found {_listed(names)}{hint}, expected question and answer; "
        "name yours with dataset.question and dataset.answer"
    )


def _wrong(column: str, value: object) -> str | None:
    """Why a value cannot be a question or an answer; None if it can."""
    if _missing(value):
        return f"the {column} is missing"
    if not isinstance(value, str):
        return f"the {column} is {_kind(value)}, not text"
    if not value.strip():
        return f"the {column} is empty"
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        return f"the {column} holds half a surrogate pair, which is no character"
    return None


def _missing(value: object) -> bool:
    return value is None or value is pd.NA or (isinstance(value, float) and value != value)


def _kind(value: object) -> str:
    kinds = {dict: "an object", list: "a list", bool: "true or false", int: "a number", float: "a number", str: "text"}
    return "null" if value is None else kinds.get(type(value), type(value).__name__)


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


def _json_hint(path: Path) -> str:
    with path.open("rb") as stream:
        start = stream.read(1)
        stream.seek(-1, 2) if start else None
        end = stream.read(1) if start else b""
    if not start:
        return f" (the file is empty); {_WANTED}"
    if start == b"{" and end != b"]":
        return "; one object to a line is the .jsonl format: rename the file"
    return f"; was the file cut off? {_WANTED}"


def _unreadable(path: Path, error: OSError) -> DataError:
    if isinstance(error, IsADirectoryError):
        return DataError(f"{path}: is a folder; expected a file: {', '.join(FORMATS)}")
    if isinstance(error, FileNotFoundError):
        return DataError(f"{path}: no such file (paths are taken from the folder the command runs in)")
    return DataError(f"{path}: cannot be read ({error.strerror})")
