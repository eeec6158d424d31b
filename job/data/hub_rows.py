"""Hub rows: a data set of the Hub, or of its cache, as chunks of columns.

It knows the datasets library and the many errors it raises, each of which becomes one line here. It does not know
which columns are wanted.

The commit is looked up first, so that what was read can be named. When the Hub fails later on, datasets takes the
latest version in its cache without an error; so the commit is compared with that of what was loaded.
"""

import ast
import gzip
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import datasets
import httpx2
import pyarrow as pa
from huggingface_hub import HfApi, constants
from huggingface_hub.errors import OfflineModeIsEnabled
from huggingface_hub.file_download import repo_folder_name

from job.data.credentials import without_secrets
from job.data.files import CHUNK, Choose, Chunk
from job.errors import ConfigError, DataError, KickoffError, chain
from job.hub import errors as hub_errors
from job.hub.errors import Wanted
from job.run import durable

_COMMIT = re.compile(r"[0-9a-f]{40}")
_LIST = re.compile(r"\[[^\[\]]*\]")


@dataclass(frozen=True)
class HubName:
    """What the config says of a data set on the Hub."""

    name: str
    config: str | None
    revision: str | None
    split: str


def load(asked: HubName) -> tuple[datasets.Dataset, str | None]:
    """The rows, and the commit they are of.

    Raises:
        DataError, ConfigError: there is no such data set, or it cannot be read.
        KickoffError: the Hub did not answer; a retry may help.
    """
    commit = None
    try:
        commit = _cached_commit(asked) if constants.HF_HUB_OFFLINE else _commit(asked)
        loaded = datasets.load_dataset(asked.name, asked.config, revision=commit, split=asked.split)
    except (KickoffError, MemoryError):
        raise
    except Exception as error:
        # anything may be raised while unknown files are read; what is not known by its type is told with it
        if durable.is_disk_full(error):
            raise
        raise _told(error, asked, commit) from None
    return loaded, _same_commit(loaded, asked, commit)


def chunks(loaded: datasets.Dataset, split: str, choose: Choose) -> Iterator[Chunk]:
    """The rows as chunks; only the columns chosen are read, and no picture or sound is decoded."""
    schema = loaded.features.arrow_schema
    filled = [column.with_type(pa.null()) if _is_empty(loaded.data[column.name]) else column for column in schema]
    chosen = loaded.select_columns(choose(pa.schema(filled))).with_format("arrow")
    first = 1
    for table in chosen.iter(CHUNK):
        places = [f"{split} row {number}" for number in range(first, first + table.num_rows)]
        yield Chunk(places, table.to_pydict(), schema.names)
        first += table.num_rows


def _is_empty(column: pa.ChunkedArray) -> bool:
    """Whether nothing is in a column, also where each row holds a picture without bytes and path."""
    if pa.types.is_struct(column.type) and column.type.num_fields:
        return all(map(_is_empty, column.flatten()))
    return bool(column.null_count == len(column))


def _commit(asked: HubName) -> str | None:
    commit = HfApi().dataset_info(asked.name, revision=asked.revision).sha
    if commit is not None and asked.revision != commit:
        reference = _reference(asked)
        reference.parent.mkdir(parents=True, exist_ok=True)
        reference.write_text(commit)  # as the Hub's client does, so that the name is known without the Hub as well
    return commit


def _cached_commit(asked: HubName) -> str | None:
    """The commit that the revision was when it was last asked for; None if nothing is known of it."""
    if asked.revision is not None and _COMMIT.fullmatch(asked.revision):
        return asked.revision
    reference = _reference(asked)
    if reference.is_file():
        return reference.read_text().strip()
    if asked.revision is not None:
        raise DataError(
            f"dataset.revision: HF_HUB_OFFLINE is set, and the cache {constants.HF_HUB_CACHE} does not know which "
            f"commit of {asked.name} is {asked.revision!r}; name the commit, or run once with the Hub"
        )
    return None


def _reference(asked: HubName) -> Path:
    folder = Path(constants.HF_HUB_CACHE) / repo_folder_name(repo_id=asked.name, repo_type="dataset")
    return folder / "refs" / (asked.revision or "main")


def _same_commit(loaded: datasets.Dataset, asked: HubName, commit: str | None) -> str | None:
    """The commit that the loaded rows are of, which the cache names its folder by."""
    folders = {Path(file["filename"]).parent.name for file in loaded.cache_files}
    found = next(iter(folders)) if len(folders) == 1 else None
    if found is None or not _COMMIT.fullmatch(found) or found == commit:
        return commit
    if commit is None:
        return found
    if constants.HF_HUB_OFFLINE:
        raise DataError(
            f"dataset.revision: HF_HUB_OFFLINE is set, and the newest commit of {asked.name} in the cache is {found}, "
            f"not {commit}; run once with the Hub, or set dataset.revision to the cached one"
        )
    raise KickoffError(f"the Hub did not give the data set {asked.name}@{commit}; run the same command again")


def _told(error: Exception, asked: HubName, commit: str | None) -> KickoffError:
    """Return the one line that says what is wrong and what to do."""
    name = asked.name
    unknown = f"no data set {name!r} on the Hub, or HF_TOKEN may not read it; check the name and the token"
    wanted = Wanted("dataset", "dataset.name", name, asked.revision, unknown, "data set")
    if any(isinstance(link, OfflineModeIsEnabled) for link in chain(error)) or constants.HF_HUB_OFFLINE:
        return _told_offline(error, asked)
    if refusal := hub_errors.explain(error, wanted):
        return refusal
    if isinstance(error, RuntimeError) and "scripts are no longer supported" in str(error):
        return ConfigError(
            f"dataset.name: {name} is a loading script, which is not run; the Hub keeps the rows of many of them as "
            "Parquet: set dataset.revision: refs/convert/parquet"
        )
    if isinstance(error, ValueError) and (unknown_choice := _told_choice(error, asked)):
        return unknown_choice
    if isinstance(error, FileNotFoundError):
        return DataError(f"dataset.name: {name}@{commit} holds no file of rows: {_line(error)}")
    if isinstance(error, httpx2.HTTPError | OSError) and not isinstance(error, gzip.BadGzipFile):
        return hub_errors.unavailable(wanted, _line(error))
    cause = error.__cause__ if isinstance(error, datasets.exceptions.DatasetGenerationError) else None
    return DataError(f"dataset.name: {name}@{commit} cannot be read: {_line(cause or error)}")


def _told_offline(error: Exception, asked: HubName) -> KickoffError:
    cached = _LIST.search(str(error))
    wanted = asked.name if asked.config is None else f"{asked.name} (configuration {asked.config!r})"
    holds = f", which holds the configurations {_listed(cached[0])}" if cached else ""
    return DataError(
        f"dataset.name: HF_HUB_OFFLINE is set, and {wanted}, split {asked.split!r}, is not in the cache "
        f"{datasets.config.HF_DATASETS_CACHE}{holds}; run once with the Hub, or unset HF_HUB_OFFLINE"
    )


def _told_choice(error: ValueError, asked: HubName) -> DataError | None:
    """Of an unknown configuration or split, with those that there are."""
    known = _LIST.search(str(error))
    if known is None:
        return None
    text, there = str(error), _listed(known[0])
    if text.startswith("Config name is missing"):
        return DataError(f"dataset.config: {asked.name} has several configurations; set it to one of {there}")
    if text.startswith("BuilderConfig"):
        return DataError(f"dataset.config: {asked.name} has no configuration {asked.config!r}; it has {there}")
    if text.startswith("Unknown split"):
        return DataError(f"dataset.split: {asked.name} has no split {asked.split!r}; it has {there}")
    return None


def _listed(found: str) -> str:
    try:
        names = ast.literal_eval(found)
    except (ValueError, SyntaxError):
        return found
    shown = ", ".join(repr(name) for name in names[:20])
    return f"{shown} and {len(names) - 20} more" if len(names) > 20 else shown


def _line(error: BaseException) -> str:
    text = without_secrets(" ".join(str(error).split()))
    return f"{type(error).__name__}: {text if len(text) <= 300 else text[:297] + '...'}"
