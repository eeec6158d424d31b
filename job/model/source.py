"""Source: finds the folder with the base's files: a local folder, a download from the Hub, or the Hub's cache.

It knows the Hub and HF_HUB_OFFLINE. It does not know what the files mean: a callback selects the weights as soon as the
small files are downloaded, so that an unsuitable base costs no download of its weights.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Literal

import httpx2
from huggingface_hub import HfApi, constants, snapshot_download
from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

from job.config.schema import ModelSection
from job.errors import ConfigError
from job.hub import errors as hub_errors
from job.hub.errors import Wanted
from job.run import durable
from job.run.messages import one_line

SMALL_FILES = ["*.json", "*.txt", "*.model", "*.jinja"]
Key = Literal["base", "ground"]
SelectWeights = Callable[[Path, set[str]], list[str]]
"""(folder with the small files, names of all files) -> names of the weights; refuses an unsuitable base."""


def locate(section: ModelSection, select: SelectWeights, key: Key = "base") -> tuple[Path, str | None]:
    """Find the local folder that holds the base's files, and download them if necessary.

    Args:
        section: The config's model section; its `base` and `revision` are located, whatever key they come from.
        select: Selects the weights to download.
        key: The key of the config that named it, for errors.

    Returns:
        The folder, and the commit if the base is on the Hub.

    Raises:
        ConfigError: There is no such base, it may not be read, or `select` refuses it.
        KickoffError: The Hub did not answer; a retry may help.
    """
    local = Path(section.base)
    if local.is_dir():
        if section.revision is not None:
            named = "model.revision" if key == "base" else "model.ground_revision"
            raise ConfigError(
                f"{named}: found {section.revision!r}, and {section.base} is a folder, which has no revisions; "
                "leave it out"
            )
        select(local, names_in(local))
        return local, None
    try:
        return _from_cache(section, select, key) if constants.HF_HUB_OFFLINE else _from_hub(section, select)
    except (httpx2.HTTPError, HFValidationError, OSError) as error:
        if durable.is_disk_full(error):
            raise
        wanted = _wanted(section, key)
        raise (
            hub_errors.explain(error, wanted) or hub_errors.unavailable(wanted, one_line(error, most=None))
        ) from None


def _wanted(section: ModelSection, key: Key) -> Wanted:
    unknown = (
        f"found {section.base!r}, which is neither a folder here nor a model on the Hub that HF_TOKEN may read; check "
        "the "
        "name (owner/name) and the token"
    )
    return Wanted(
        "model", f"model.{key}", section.base, section.revision, unknown, "base model" if key == "base" else "retriever"
    )


def names_in(folder: Path) -> set[str]:
    """Return the paths of all files in a folder, relative to it."""
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def _from_hub(section: ModelSection, select: SelectWeights) -> tuple[Path, str | None]:
    names = {file.rfilename for file in HfApi().model_info(section.base, revision=section.revision).siblings or []}
    # download by the revision's name, which the cache then records: offline the folder is found by it
    small = Path(snapshot_download(section.base, revision=section.revision, allow_patterns=SMALL_FILES))
    weights = select(small, names)
    complete = snapshot_download(section.base, revision=small.name, allow_patterns=[*SMALL_FILES, *weights])
    return Path(complete), small.name


def _from_cache(section: ModelSection, select: SelectWeights, key: Key) -> tuple[Path, str | None]:
    """Find the base in the cache without asking the Hub, for HF_HUB_OFFLINE."""
    try:
        folder = Path(snapshot_download(section.base, revision=section.revision, local_files_only=True))
    except LocalEntryNotFoundError:
        wanted = section.base if section.revision is None else f"{section.base}@{section.revision}"
        raise ConfigError(
            f"model.{key}: HF_HUB_OFFLINE is set and {wanted} is not in the cache {constants.HF_HUB_CACHE}; run once "
            "without it, or name a folder"
        ) from None
    try:
        select(folder, names_in(folder))
    except ConfigError as error:
        raise ConfigError(f"{error} (HF_HUB_OFFLINE is set, and the cache may hold only a part of it)") from None
    return folder, folder.name
