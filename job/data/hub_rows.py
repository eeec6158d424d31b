"""Hub rows: reads a data set from the Hub, or from its cache, as chunks of columns.

It knows the datasets library, and turns each of the many errors it raises into one line. It does not know which columns
are needed.

The commit is resolved first, so that the run can name what it read. If the Hub fails after that, datasets silently
takes the latest version in its cache; so the commit of the loaded rows is compared with the resolved one.
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

from job.data.credentials import redact
from job.data.files import CHUNK_ROWS, Choose, Chunk
from job.errors import ConfigError, DataError, KickoffError, chain
from job.hub import errors as hub_errors
from job.hub.errors import Wanted
from job.run import durable

_COMMIT = re.compile(r"[0-9a-f]{40}")
_NAME_LIST = re.compile(r"\[[^\[\]]*\]")


@dataclass(frozen=True)
class HubDataset:
    """A data set on the Hub, as the config names it."""

    name: str
    config: str | None
    revision: str | None
    split: str


def load(dataset: HubDataset) -> tuple[datasets.Dataset, str | None]:
    """Download a data set, or open it in the cache.

    Args:
        dataset: the data set's name, configuration, revision and split.

    Returns:
        The rows, and the commit they come from; None if it is not known.

    Raises:
        DataError: there is no such data set, or it cannot be read.
        ConfigError: it is a loading script, which is not run.
        KickoffError: the Hub did not answer; a retry may help.
    """
    commit = None
    try:
        commit = _cached_commit(dataset) if constants.HF_HUB_OFFLINE else _commit(dataset)
        loaded = datasets.load_dataset(dataset.name, dataset.config, revision=commit, split=dataset.split)
    except (KickoffError, MemoryError):
        raise
    except Exception as error:
        # reading unknown files may raise anything; the message names the type of an error that is not known here
        if durable.is_disk_full(error):
            raise
        raise _explain(error, dataset, commit) from None
    return loaded, _same_commit(loaded, dataset, commit)


def chunks(loaded: datasets.Dataset, split: str, choose: Choose) -> Iterator[Chunk]:
    """Read the rows chunk by chunk, without decoding pictures and sounds.

    Args:
        loaded: as `load` gives it.
        split: its name, for the locations of the rows.
        choose: chooses the columns to read.
    """
    schema = loaded.features.arrow_schema
    filled = [column.with_type(pa.null()) if _is_empty(loaded.data[column.name]) else column for column in schema]
    chosen = loaded.select_columns(choose(pa.schema(filled))).with_format("arrow")
    first = 1
    for table in chosen.iter(CHUNK_ROWS):
        locations = [f"{split} row {number}" for number in range(first, first + table.num_rows)]
        yield Chunk(locations, table.to_pydict(), schema.names)
        first += table.num_rows


def _is_empty(column: pa.ChunkedArray) -> bool:
    """Whether a column holds no value; a picture without bytes and path is none."""
    if pa.types.is_struct(column.type) and column.type.num_fields:
        return all(map(_is_empty, column.flatten()))
    return bool(column.null_count == len(column))


def _commit(dataset: HubDataset) -> str | None:
    commit = HfApi().dataset_info(dataset.name, revision=dataset.revision).sha
    if commit is not None and dataset.revision != commit:
        reference = _reference(dataset)
        reference.parent.mkdir(parents=True, exist_ok=True)
        reference.write_text(commit)  # as the Hub's client does, so that the name resolves offline too
    return commit


def _cached_commit(dataset: HubDataset) -> str | None:
    """The commit that the revision had when it was last resolved; None if it never was."""
    if dataset.revision is not None and _COMMIT.fullmatch(dataset.revision):
        return dataset.revision
    reference = _reference(dataset)
    if reference.is_file():
        return reference.read_text().strip()
    if dataset.revision is not None:
        raise DataError(
            f"dataset.revision: HF_HUB_OFFLINE is set, and the cache {constants.HF_HUB_CACHE} does not know which "
            f"commit of {dataset.name} is {dataset.revision!r}; name the commit, or run once online"
        )
    return None


def _reference(dataset: HubDataset) -> Path:
    folder = Path(constants.HF_HUB_CACHE) / repo_folder_name(repo_id=dataset.name, repo_type="dataset")
    return folder / "refs" / (dataset.revision or "main")


def _same_commit(loaded: datasets.Dataset, dataset: HubDataset, commit: str | None) -> str | None:
    """The commit of the loaded rows, by which the cache names their folder; it must be the resolved one."""
    folders = {Path(file["filename"]).parent.name for file in loaded.cache_files}
    cached = next(iter(folders)) if len(folders) == 1 else None
    if cached is None or not _COMMIT.fullmatch(cached) or cached == commit:
        return commit
    if commit is None:
        return cached
    if constants.HF_HUB_OFFLINE:
        raise DataError(
            f"dataset.revision: HF_HUB_OFFLINE is set, and the newest commit of {dataset.name} in the cache is "
            f"{cached}, not {commit}; run once online, or set dataset.revision to the cached one"
        )
    raise KickoffError(f"the Hub did not deliver the data set {dataset.name}@{commit}; run the same command again")


def _explain(error: Exception, dataset: HubDataset, commit: str | None) -> KickoffError:
    """Return the one line that says what is wrong and what to do."""
    name = dataset.name
    unknown = f"no data set {name!r} on the Hub, or HF_TOKEN may not read it; check the name and the token"
    wanted = Wanted("dataset", "dataset.name", name, dataset.revision, unknown, "data set")
    if any(isinstance(link, OfflineModeIsEnabled) for link in chain(error)) or constants.HF_HUB_OFFLINE:
        return _explain_offline(error, dataset)
    if refusal := hub_errors.explain(error, wanted):
        return refusal
    if isinstance(error, RuntimeError) and "scripts are no longer supported" in str(error):
        return ConfigError(
            f"dataset.name: {name} has a loading script, which is not run; the Hub keeps the rows of many such data "
            "sets as Parquet: set dataset.revision: refs/convert/parquet"
        )
    if isinstance(error, ValueError) and (explained := _explain_choice(error, dataset)):
        return explained
    if isinstance(error, FileNotFoundError):
        return DataError(f"dataset.name: {name}@{commit} has no data files: {_line(error)}")
    if isinstance(error, httpx2.HTTPError | OSError) and not isinstance(error, gzip.BadGzipFile):
        return hub_errors.unavailable(wanted, _line(error))
    cause = error.__cause__ if isinstance(error, datasets.exceptions.DatasetGenerationError) else None
    return DataError(f"dataset.name: {name}@{commit} cannot be read: {_line(cause or error)}")


def _explain_offline(error: Exception, dataset: HubDataset) -> KickoffError:
    cached = _NAME_LIST.search(str(error))
    description = dataset.name if dataset.config is None else f"{dataset.name} (configuration {dataset.config!r})"
    holds = f", which holds the configurations {_format_names(cached[0])}" if cached else ""
    return DataError(
        f"dataset.name: HF_HUB_OFFLINE is set, and {description}, split {dataset.split!r}, is not in the cache "
        f"{datasets.config.HF_DATASETS_CACHE}{holds}; run once online, or unset HF_HUB_OFFLINE"
    )


def _explain_choice(error: ValueError, dataset: HubDataset) -> DataError | None:
    """The error for an unknown configuration or split, with those that exist."""
    match = _NAME_LIST.search(str(error))
    if match is None:
        return None
    text, names = str(error), _format_names(match[0])
    if text.startswith("Config name is missing"):
        return DataError(f"dataset.config: {dataset.name} has several configurations; set it to one of {names}")
    if text.startswith("BuilderConfig"):
        return DataError(f"dataset.config: {dataset.name} has no configuration {dataset.config!r}; it has {names}")
    if text.startswith("Unknown split"):
        return DataError(f"dataset.split: {dataset.name} has no split {dataset.split!r}; it has {names}")
    return None


def _format_names(text: str) -> str:
    try:
        names = ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text
    shown = ", ".join(repr(name) for name in names[:20])
    return f"{shown} and {len(names) - 20} more" if len(names) > 20 else shown


def _line(error: BaseException) -> str:
    text = redact(" ".join(str(error).split()))
    return f"{type(error).__name__}: {text if len(text) <= 300 else text[:297] + '...'}"
