"""Source: the folder that holds the base's files, wherever the base is: a folder here, the Hub, or the Hub's cache.

It knows the Hub's errors and HF_HUB_OFFLINE. It does not know what the files mean; whoever does is asked as soon as
the small files are here, so that an unfit base costs no download of its weights.
"""

from collections.abc import Callable
from pathlib import Path

import httpx2
from huggingface_hub import HfApi, constants, snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from job.config.schema import ModelSection
from job.errors import ConfigError, KickoffError
from job.run import durable

SMALL_FILES = ["*.json", "*.txt", "*.model", "*.jinja"]
Admit = Callable[[Path, set[str]], list[str]]
"""Given the folder and the names of all files of the base: the weights to load. Raises ConfigError if it is unfit."""


def find(section: ModelSection, admit: Admit) -> tuple[Path, str | None]:
    """The local folder that holds the base's files, downloaded if need be, and its commit if it is on the Hub.

    Raises:
        ConfigError: there is no such base, it may not be read, or `admit` refuses it.
        KickoffError: the Hub did not answer; a retry may help.
    """
    local = Path(section.base)
    if local.is_dir():
        if section.revision is not None:
            raise ConfigError(
                f"model.revision: found {section.revision!r}, and {section.base} is a folder, which has no revisions; "
                "leave it out"
            )
        admit(local, names_in(local))
        return local, None
    try:
        return _from_cache(section, admit) if constants.HF_HUB_OFFLINE else _from_hub(section, admit)
    except GatedRepoError:
        raise ConfigError(
            f"model.base: {section.base} is gated: ask for access at {constants.ENDPOINT}/{section.base} and set "
            "HF_TOKEN to a token of the account that has it"
        ) from None
    except (RepositoryNotFoundError, HFValidationError):
        raise ConfigError(
            f"model.base: found {section.base!r}, which is no folder here and no model on the Hub that HF_TOKEN may "
            "read; check the name (owner/name) and the token"
        ) from None
    except RevisionNotFoundError:
        raise ConfigError(
            f"model.revision: {section.base} has no revision {section.revision!r}; expected a branch, a tag or a commit"
        ) from None
    except (httpx2.HTTPError, OSError) as error:
        if durable.is_full(error):
            raise
        raise KickoffError(
            f"the Hub did not give the base model {section.base}: {error}; run the same command again"
        ) from None


def names_in(folder: Path) -> set[str]:
    """The files of a folder, by their path inside it."""
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def _from_hub(section: ModelSection, admit: Admit) -> tuple[Path, str | None]:
    names = {file.rfilename for file in HfApi().model_info(section.base, revision=section.revision).siblings or []}
    # by the name of the revision, which the cache then knows: offline it finds the folder again
    small = Path(snapshot_download(section.base, revision=section.revision, allow_patterns=SMALL_FILES))
    weights = admit(small, names)
    whole = snapshot_download(section.base, revision=small.name, allow_patterns=[*SMALL_FILES, *weights])
    return Path(whole), small.name


def _from_cache(section: ModelSection, admit: Admit) -> tuple[Path, str | None]:
    """HF_HUB_OFFLINE is set: what the cache holds has to do, and nothing is asked of the Hub."""
    try:
        folder = Path(snapshot_download(section.base, revision=section.revision, local_files_only=True))
    except LocalEntryNotFoundError:
        wanted = section.base if section.revision is None else f"{section.base}@{section.revision}"
        raise ConfigError(
            f"model.base: HF_HUB_OFFLINE is set and {wanted} is not in the cache {constants.HF_HUB_CACHE}; run once "
            "without it, or name a folder"
        ) from None
    try:
        admit(folder, names_in(folder))
    except ConfigError as error:
        raise ConfigError(f"{error} (HF_HUB_OFFLINE is set, and the cache may hold only a part of it)") from None
    return folder, folder.name
