"""Hub: publishes a model to a repository on the Hub, in one commit, after the uploaded copy is verified.

The files are first committed to a staging branch. The model is downloaded from there and verified. Then the same files
go to `main` (or publish.branch) in one commit whose parent is the head that was read before: if somebody else has
committed in between, the Hub refuses, and nothing is overwritten. The staging branch is removed. On any failure `main`
is unchanged. A pull request would stay in the repository for ever, and merging it cannot name a parent commit.

It knows the Hub's client. It does not know what the model answers.
"""

import contextlib
import hashlib
import logging
import os
import tempfile
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from huggingface_hub import (
    CommitOperationAdd,
    CommitOperationDelete,
    HfApi,
    hf_hub_download,
    snapshot_download,
)
from huggingface_hub.errors import (
    HfHubHTTPError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.hf_api import RepoFile

from job.config.schema import PublishSection
from job.errors import ConfigError, PublishError
from job.hub.client import HubDown
from job.hub.errors import FAILURES, retry, status
from job.publishing import contract
from job.publishing.contract import MARK
from job.publishing.verify import Samples
from job.run.messages import join_names, one_line
from job.run.out_of_memory import is_out_of_memory

_HUB_FILES = {".gitattributes"}
"""Written by the Hub itself, to list the large files."""
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
    """The head of a branch: its commit and its files."""

    sha: str
    large: dict[str, str]
    """{name: SHA-256} of the files in large file storage."""
    small: dict[str, str]
    """{name: git's blob id} of the other files."""

    @property
    def names(self) -> set[str]:
        """The names of all files."""
        return set(self.large) | set(self.small)

    def holds(self, model: Path) -> bool:
        """Return whether the commit holds exactly the files of a folder."""
        same = all(
            self.large[name] == contract.sha256(model / name)
            if name in self.large
            else self.small.get(name) == _git_id(model / name)
            for name in contract.files(model)
        )
        return same and self.names == set(contract.files(model))


def publish_to_hub(section: PublishSection, model: Path, samples: Samples) -> Commit:
    """Publish a model to publish.repo, and verify it.

    Args:
        section: The config's publish section.
        model: The complete model folder, with its mark.
        samples: Questions, and the answers of the model in the run folder.

    Returns:
        The commit that holds the model; an earlier one if the branch holds the same files already.

    Raises:
        ConfigError: By now the repository holds something that Kickoff did not write.
        PublishError: The upload failed, or the published copy gives other answers.
    """
    api, repo = HfApi(token=os.environ["HF_TOKEN"]), str(section.repo)
    try:
        retry(lambda: _create(api, section))
        before = retry(lambda: _read_head(api, repo, section.branch))
        if before.holds(model):
            _verify(repo, before.sha, samples)
            sha = before.sha
            with contextlib.suppress(*FAILURES):  # left by a run that lost the connection at its end
                api.delete_branch(repo, branch=_staging_branch(model))
        else:
            retry(lambda: require_replaceable(api, section))
            retry(lambda: require_tag_free(api, section, moving=True))
            sha = _stage_and_commit(api, section, model, samples, before)
        if section.tag is not None:
            retry(lambda: _tag(api, repo, str(section.tag), sha))
    except FAILURES as error:
        if is_out_of_memory(error):
            raise
        raise PublishError(f"publishing to {repo} failed: {one_line(error, most=None)}") from None
    except ValueError as error:  # the Hub does not accept the model card
        raise PublishError(f"publishing to {repo} failed: {one_line(error, most=None)}") from None
    return Commit(repo, sha, f"{api.endpoint}/{repo}/tree/{sha}")


def require_replaceable(api: HfApi, section: PublishSection) -> None:
    """Raise ConfigError if the branch holds files that Kickoff did not write, unless publish.replace allows it."""
    repo = str(section.repo)
    try:
        head = None if section.replace else _read_head(api, repo, section.branch)
    except (RepositoryNotFoundError, RevisionNotFoundError):  # it is created later
        return
    names = head.names - {"README.md"} if head is not None else set()  # which the Hub's own form may add
    if head is None or not names or _is_on_main(api, section, head):
        return
    mark = contract.read_mark(_download(repo, head.sha, MARK)) if MARK in names else None
    foreign = contract.foreign_files(head.names, mark, head.large)
    if foreign:
        raise ConfigError(
            f"publish.repo: expected an empty repository or a model that Kickoff published; {_target(section)} holds "
            f"{join_names(foreign, most=3)}, which it did not write; choose another repository, or set publish.replace "
            "to true to delete everything there (the history keeps it)"
        )


def _is_on_main(api: HfApi, section: PublishSection, head: _Head) -> bool:
    """Return whether a new branch still has the head of `main`; then replacing its files loses nothing."""
    return section.branch not in (None, "main") and api.model_info(str(section.repo)).sha == head.sha


def require_tag_free(api: HfApi, section: PublishSection, moving: bool) -> None:
    """Require that the tag can be set.

    Args:
        api: The Hub's client.
        section: The config's publish section.
        moving: Whether the branch gets a new commit; if not, the tag may be on its head already.

    Raises:
        ConfigError: The tag is on another commit.
    """
    if section.tag is None:
        return
    repo = str(section.repo)
    try:
        tagged = _tags(api, repo).get(section.tag)
        head = _read_head(api, repo, section.branch).sha if tagged is not None and not moving else None
    except (RepositoryNotFoundError, RevisionNotFoundError):
        return
    if tagged is not None and tagged != head:
        raise ConfigError(
            f"publish.tag: {repo} already has the tag {section.tag}, on {tagged}; not published: choose another tag"
        )


def _create(api: HfApi, section: PublishSection) -> None:
    api.create_repo(str(section.repo), private=section.private, exist_ok=True)
    if section.branch is not None:
        api.create_branch(str(section.repo), branch=section.branch, exist_ok=True)


def _stage_and_commit(api: HfApi, section: PublishSection, model: Path, samples: Samples, before: _Head) -> str:
    """Commit the files to a staging branch, verify them, and commit them to the target branch; return that sha."""
    repo, staging = str(section.repo), _staging_branch(model)
    try:
        retry(lambda: api.create_branch(repo, branch=staging, revision=before.sha, exist_ok=True))
        staged = retry(lambda: _commit(api, repo, staging, model, _read_head(api, repo, staging)))
        _verify(repo, staged, samples)
        sha = retry(lambda: _commit_to_target(api, section, model, before))
    except HubDown:
        log.warning(f"publish: the branch {staging} of {repo} was left behind; publishing again removes it")
        raise
    except Exception:
        with contextlib.suppress(*FAILURES):
            api.delete_branch(repo, branch=staging)
        raise
    try:
        retry(lambda: _delete(api, repo, staging))
    except FAILURES as error:
        log.warning(
            f"publish: the branch {staging} of {repo} could not be removed ({one_line(error, most=None)}); remove it"
        )
    return sha


def _staging_branch(model: Path) -> str:
    """Return the branch's name, which depends on the files: a run that was killed finds its branch again."""
    return f"kickoff-{hashlib.sha256((model / MARK).read_bytes()).hexdigest()[:12]}"


def _commit(api: HfApi, repo: str, branch: str, model: Path, head: _Head) -> str:
    """Commit exactly the files of a folder to a branch on top of `head`; return the new head."""
    removed = [CommitOperationDelete(name, is_folder=False) for name in sorted(head.names - set(contract.files(model)))]
    added = [CommitOperationAdd(name, model / name) for name in contract.files(model)]
    with warnings.catch_warnings():
        # it takes a retriever's answers.parquet for a data set in the wrong place
        warnings.filterwarnings("ignore", message=".*commit a data file")
        commit = api.create_commit(
            repo, [*removed, *added], commit_message=_MESSAGE, revision=branch, parent_commit=head.sha
        )
    return commit.oid


def _commit_to_target(api: HfApi, section: PublishSection, model: Path, before: _Head) -> str:
    repo, branch = str(section.repo), section.branch or "main"
    head = _read_head(api, repo, branch)
    if head.sha == before.sha:
        try:
            return _commit(api, repo, branch, model, head)
        except HfHubHTTPError as error:
            if status(error) != 412:
                raise
    elif head.holds(model):  # of an earlier attempt, whose response was lost
        return head.sha
    raise PublishError(
        f"publishing to {repo} failed: somebody else has committed to {_target(section)} in the meantime; nothing "
        "was overwritten; look at that commit first"
    )


def _delete(api: HfApi, repo: str, branch: str) -> None:
    try:
        api.delete_branch(repo, branch=branch)
    except HfHubHTTPError as error:  # of an earlier attempt, whose response was lost
        if status(error) != 404:
            raise


def _verify(repo: str, sha: str, samples: Samples) -> None:
    with tempfile.TemporaryDirectory(prefix="kickoff-published-") as fresh:
        retry(lambda: snapshot_download(repo, revision=sha, local_dir=fresh, token=os.environ["HF_TOKEN"]))
        samples.require_same(f"{repo}@{sha}", Path(fresh))


def _read_head(api: HfApi, repo: str, branch: str | None) -> _Head:
    sha = str(api.model_info(repo, revision=branch).sha)
    entries = api.list_repo_tree(repo, recursive=True, revision=sha)
    files = [entry for entry in entries if isinstance(entry, RepoFile) and entry.path not in _HUB_FILES]
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
    tags = _tags(api, repo)
    if tags.get(tag, sha) != sha:
        raise PublishError(
            f"publish.tag: {repo} already has the tag {tag}, on {tags[tag]}; published as {sha} without a tag: choose "
            "another"
        )
    if tag not in tags:
        api.create_tag(repo, tag=tag, revision=sha)


def _target(section: PublishSection) -> str:
    return f"{section.repo}@{section.branch}" if section.branch is not None else str(section.repo)
