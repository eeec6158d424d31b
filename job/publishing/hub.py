"""Hub: a model published to a repository on the Hub, in one commit, once it has answered from there.

The files first go to a branch of their own. The model is downloaded from that branch and asked; then the same files
go to `main` (or publish.branch) in one commit on top of the head that was seen before, so that a commit of somebody
else in between is refused by the Hub and never overwritten. The branch is removed. On any failure `main` is as it
was. A pull request would stay in the repository for ever, and its merge has no parent to name.

It knows the Hub's client. It does not know what the model says.
"""

import contextlib
import hashlib
import json
import logging
import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import httpx2
from huggingface_hub import (
    CommitOperationAdd,
    CommitOperationDelete,
    HfApi,
    hf_hub_download,
    snapshot_download,
)
from huggingface_hub.errors import (
    HfHubHTTPError,
    LocalTokenNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.hf_api import RepoFile

from job.config.schema import PublishSection
from job.errors import ConfigError, PublishError
from job.hub.client import HubDown, wait_asked
from job.publishing import contract
from job.publishing.contract import MARK
from job.publishing.verify import Samples
from job.run.messages import listed, one_line
from job.run.out_of_memory import is_out_of_memory

ATTEMPTS = 3
FAILURES = (httpx2.HTTPError, OSError, RuntimeError, json.JSONDecodeError)
"""What the client raises when the Hub fails: RuntimeError where an upload was cut too often, and JSONDecodeError where
it looks into an answer before it looks at its status."""
_OF_THE_HUB = {".gitattributes"}
"""The Hub writes it itself and says in it which files are large."""
_MESSAGE = "Publish a model fine-tuned with Kickoff"
log = logging.getLogger(__name__)
Result = TypeVar("Result")


@dataclass(frozen=True)
class Commit:
    """A commit of a repository, and its address on the Hub."""

    repo: str
    sha: str
    url: str


@dataclass(frozen=True)
class _Head:
    """A commit, and what it holds: of each file SHA-256 if it is a large one, else git's id."""

    sha: str
    large: dict[str, str]
    small: dict[str, str]

    @property
    def names(self) -> set[str]:
        return set(self.large) | set(self.small)

    def holds(self, model: Path) -> bool:
        """Whether it holds the files of a folder, and nothing else."""
        same = all(
            self.large[name] == contract.sha256(model / name)
            if name in self.large
            else self.small.get(name) == _git_id(model / name)
            for name in contract.files(model)
        )
        return same and self.names == set(contract.files(model))


def to_hub(section: PublishSection, model: Path, samples: Samples) -> Commit:
    """Publish; the commit that holds the model.

    Raises:
        ConfigError: by now the repository holds something that is not ours.
        PublishError: it did not arrive, or answers otherwise than the model in the run folder.
    """
    api, repo = HfApi(token=os.environ["HF_TOKEN"]), str(section.repo)
    try:
        retried(lambda: _make(api, section))
        before = retried(lambda: _head(api, repo, section.branch))
        if before.holds(model):
            _ask(repo, before.sha, samples)
            sha = before.sha
            with contextlib.suppress(*FAILURES):  # a run that lost the Hub at its end may have left it
                api.delete_branch(repo, branch=_aside(model))
        else:
            retried(lambda: require_replaceable(api, section))
            retried(lambda: require_tag_free(api, section, moving=True))
            sha = _staged(api, section, model, samples, before)
        if section.tag is not None:
            retried(lambda: _tag(api, repo, str(section.tag), sha))
    except FAILURES as error:
        if is_out_of_memory(error):
            raise
        raise PublishError(f"publishing to {repo} failed: {one_line(error, most=None)}") from None
    except ValueError as error:  # what the client makes of a card that the Hub does not take
        raise PublishError(f"publishing to {repo} failed: {one_line(error, most=None)}") from None
    return Commit(repo, sha, f"{api.endpoint}/{repo}/tree/{sha}")


def require_replaceable(api: HfApi, section: PublishSection) -> None:
    """Raise ConfigError if the branch holds anything but an earlier model of ours, unless publish.replace allows it."""
    repo = str(section.repo)
    try:
        head = None if section.replace else _head(api, repo, section.branch)
    except (RepositoryNotFoundError, RevisionNotFoundError):  # it is still to be made
        return
    names = head.names - {"README.md"} if head is not None else set()  # the Hub's page for a new one offers a card
    if head is None or not names or _is_on_main(api, section, head):
        return
    mark = contract.read_mark(_download(repo, head.sha, MARK)) if MARK in names else None
    found = contract.not_ours(head.names, mark, head.large)
    if found:
        raise ConfigError(
            f"publish.repo: expected an empty repository or a model that Kickoff published; {_place(section)} holds "
            f"{listed(found, most=3)}, which it did not write; choose another repository, or set publish.replace to "
            "true to delete all that is there (the history keeps it)"
        )


def _is_on_main(api: HfApi, section: PublishSection, head: _Head) -> bool:
    """A branch that was just made holds what `main` holds, and `main` keeps it."""
    return section.branch not in (None, "main") and api.model_info(str(section.repo)).sha == head.sha


def require_tag_free(api: HfApi, section: PublishSection, moving: bool) -> None:
    """Raise ConfigError if the tag is taken.

    Args:
        moving: the branch is going to move; else a tag on its head may be ours, from before.
    """
    if section.tag is None:
        return
    repo = str(section.repo)
    try:
        there = _tags(api, repo).get(section.tag)
        head = _head(api, repo, section.branch).sha if there is not None and not moving else None
    except (RepositoryNotFoundError, RevisionNotFoundError):
        return
    if there is not None and there != head:
        raise ConfigError(
            f"publish.tag: {repo} has {section.tag} already, on {there}; not published: choose another tag"
        )


def retried(call: Callable[[], Result]) -> Result:
    """The client repeats most requests by itself; a commit it does not, and a connection may be cut anywhere."""
    for attempt in range(1, ATTEMPTS):
        try:
            return call()
        except (HubDown, LocalTokenNotFoundError):
            raise
        except FAILURES as error:
            response = error.response if isinstance(error, HfHubHTTPError) else None
            if response is not None and response.status_code < 500 and response.status_code not in (408, 429):
                raise
            wait = max(2.0**attempt, wait_asked(response) if response is not None else 0)
            log.warning(f"publish: {one_line(error, most=None)}; again in {wait:.0f} s")
            time.sleep(wait)
    return call()


def _make(api: HfApi, section: PublishSection) -> None:
    api.create_repo(str(section.repo), private=section.private, exist_ok=True)
    if section.branch is not None:
        api.create_branch(str(section.repo), branch=section.branch, exist_ok=True)


def _staged(api: HfApi, section: PublishSection, model: Path, samples: Samples, before: _Head) -> str:
    """The files on a branch of their own, asked there, and then on the branch that was meant; that commit's sha."""
    repo, aside = str(section.repo), _aside(model)
    try:
        retried(lambda: api.create_branch(repo, branch=aside, revision=before.sha, exist_ok=True))
        staged = retried(lambda: _commit(api, repo, aside, model, _head(api, repo, aside)))
        _ask(repo, staged, samples)
        sha = retried(lambda: _move(api, section, model, before))
    except HubDown:
        log.warning(f"publish: the branch {aside} of {repo} is left behind; publishing again removes it")
        raise
    except Exception:
        with contextlib.suppress(*FAILURES):
            api.delete_branch(repo, branch=aside)
        raise
    try:
        retried(lambda: _delete(api, repo, aside))
    except FAILURES as error:
        log.warning(
            f"publish: the branch {aside} of {repo} could not be removed ({one_line(error, most=None)}); it may go"
        )
    return sha


def _aside(model: Path) -> str:
    """The same for the same files: a run that was killed and is run again finds its branch."""
    return f"kickoff-{hashlib.sha256((model / MARK).read_bytes()).hexdigest()[:12]}"


def _commit(api: HfApi, repo: str, branch: str, model: Path, head: _Head) -> str:
    """Make a branch, whose head was seen, hold the files of a folder and nothing else; its new head."""
    gone = [CommitOperationDelete(name, is_folder=False) for name in sorted(head.names - set(contract.files(model)))]
    added = [CommitOperationAdd(name, model / name) for name in contract.files(model)]
    done = api.create_commit(repo, [*gone, *added], commit_message=_MESSAGE, revision=branch, parent_commit=head.sha)
    return done.oid


def _move(api: HfApi, section: PublishSection, model: Path, before: _Head) -> str:
    repo, branch = str(section.repo), section.branch or "main"
    head = _head(api, repo, branch)
    if head.sha == before.sha:
        try:
            return _commit(api, repo, branch, model, head)
        except HfHubHTTPError as error:
            if error.response is None or error.response.status_code != 412:
                raise
    elif head.holds(model):  # an earlier try, whose answer was lost
        return head.sha
    raise PublishError(
        f"publishing to {repo} failed: somebody else has committed to {_place(section)} meanwhile; nothing was "
        "overwritten, look at it first"
    )


def _delete(api: HfApi, repo: str, branch: str) -> None:
    try:
        api.delete_branch(repo, branch=branch)
    except HfHubHTTPError as error:  # an earlier try, whose answer was lost
        if error.response is None or error.response.status_code != 404:
            raise


def _ask(repo: str, sha: str, samples: Samples) -> None:
    with tempfile.TemporaryDirectory(prefix="kickoff-published-") as fresh:
        retried(lambda: snapshot_download(repo, revision=sha, local_dir=fresh, token=os.environ["HF_TOKEN"]))
        samples.require_same(f"{repo}@{sha}", Path(fresh))


def _head(api: HfApi, repo: str, branch: str | None) -> _Head:
    sha = str(api.model_info(repo, revision=branch).sha)
    entries = api.list_repo_tree(repo, recursive=True, revision=sha)
    files = [entry for entry in entries if isinstance(entry, RepoFile) and entry.path not in _OF_THE_HUB]
    return _Head(
        sha,
        {file.path: file.lfs.sha256 for file in files if file.lfs is not None},
        {file.path: file.blob_id for file in files if file.lfs is None},
    )


def _download(repo: str, sha: str, name: str) -> bytes:
    with tempfile.TemporaryDirectory(prefix="kickoff-mark-") as fresh:
        token = os.environ["HF_TOKEN"]
        return Path(hf_hub_download(repo, name, revision=sha, local_dir=fresh, token=token)).read_bytes()


def _git_id(file: Path) -> str:
    content = file.read_bytes()
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


def _tags(api: HfApi, repo: str) -> dict[str, str]:
    return {ref.name: ref.target_commit for ref in api.list_repo_refs(repo).tags}


def _tag(api: HfApi, repo: str, tag: str, sha: str) -> None:
    there = _tags(api, repo)
    if there.get(tag, sha) != sha:
        raise PublishError(
            f"publish.tag: {repo} has {tag} already, on {there[tag]}; published as {sha} without a tag: choose another"
        )
    if tag not in there:
        api.create_tag(repo, tag=tag, revision=sha)


def _place(section: PublishSection) -> str:
    return f"{section.repo}@{section.branch}" if section.branch is not None else str(section.repo)
