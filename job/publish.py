"""Publish: the tuned model as a complete repository, on the Hub in one commit, or in a folder.

It knows the contract of the published repository and the Hub's client. It does not know how a model answers: the
pipeline hands it a function for that, by which what was published is asked the same questions as what is here.
"""

import json
import logging
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import httpx2
from huggingface_hub import HfApi, snapshot_download
from huggingface_hub.errors import HfHubHTTPError, LocalTokenNotFoundError, RepositoryNotFoundError

from job import durable
from job.config import Config, PublishSection
from job.errors import ConfigError, PublishError
from job.hub import HubDown, wait_asked
from job.publishing import card, paths

CONTRACT = (
    "model.safetensors",
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
    "README.md",
    "run.yaml",
    "metrics.json",
    "loss.png",
)
"""What the repository holds; a server relies on it. Weights above the shard size come as several files."""
ATTEMPTS = 3
FAILURES = (httpx2.HTTPError, OSError, RuntimeError, json.JSONDecodeError)
"""What the client raises when the Hub fails: RuntimeError where an upload was cut too often, and JSONDecodeError where
it looks into an answer before it looks at its status."""
log = logging.getLogger(__name__)
Result = TypeVar("Result")
Answer = Callable[[Path, list[str]], list[str]]


def preflight(section: PublishSection, create: bool = True) -> None:
    """Make sure before training that publishing can work after it.

    Args:
        create: make the repository if it is missing; else only look whether the token might.

    Raises:
        ConfigError: no token, a wrong one, one that may not write, or a folder that holds something else.
        PublishError: the Hub does not answer. What is done so far is kept.
    """
    if section.folder is not None:
        _require_folder(Path(section.folder))
    if section.repo is None:
        return
    if not os.environ.get("HF_TOKEN"):
        raise ConfigError(
            f"publish.repo is {section.repo}, and the environment has no HF_TOKEN; set it to a token that may write"
        )
    api = HfApi(token=os.environ["HF_TOKEN"])
    try:
        _retried(lambda: _require_may_write(api, section, create))
    except (HfHubHTTPError, LocalTokenNotFoundError) as error:
        status = error.response.status_code if isinstance(error, HfHubHTTPError) and error.response is not None else 0
        if status in (401, 403, 404):
            raise ConfigError(
                f"publish.repo: HF_TOKEN may not write to {section.repo} (the Hub answered {status}); give it a token "
                "with write access, or name a repository of your own"
            ) from None
        raise _unanswered(error) from None
    except FAILURES as error:
        raise _unanswered(error) from None


def assemble(run: Path, config: Config) -> None:
    """Complete `run/model` to the repository of the contract: card, config, metrics, loss curve."""
    model = run / "model"
    for name in ("metrics.json", "loss.png"):
        durable.write(model / name, (run / name).read_bytes())
    durable.write(model / "run.yaml", paths.run_yaml(config))
    durable.write(model / "README.md", card.card(run, config))


def publish(section: PublishSection, model: Path, questions: list[str], answer: Answer) -> dict[str, str]:
    """Bring the repository in `model` to where the config says, and ask it there.

    Returns:
        "folder", or "repo", "revision" (the commit's sha) and "url", or all; empty if the config names neither.

    Raises:
        PublishError: it did not arrive, or answers otherwise than here.
    """
    missing = [name for name in CONTRACT if not (model / name).exists() and name != "model.safetensors"]
    if missing or not list(model.glob("model*.safetensors")):
        raise PublishError(f"{model} is not complete, missing: {', '.join(missing) or 'model.safetensors'}; run again")
    expected = answer(model, questions) if section.folder or section.repo else []
    published: dict[str, str] = {}
    if section.folder is not None:
        published["folder"] = _to_folder(Path(section.folder), model, questions, expected, answer)
    if section.repo is not None:
        published |= _to_hub(section, model, questions, expected, answer)
    return published


def sentence(published: dict[str, str], model: Path) -> str:
    """What to tell the user."""
    if not published:
        return f"done, not published: neither publish.repo nor publish.folder is set; the model is in {model}"
    where = [published["folder"]] if "folder" in published else []
    where += [f"{published['repo']}@{published['revision']}"] if "repo" in published else []
    return f"done: published {' and '.join(where)}, asked there and found to answer as here"


def _to_folder(target: Path, model: Path, questions: list[str], expected: list[str], answer: Answer) -> str:
    partial, old = target.with_name(target.name + ".partial"), target.with_name(target.name + ".old")
    try:
        if old.exists() and not target.exists():  # a run that was killed between the two renames below
            old.rename(target)
        for leftover in (partial, old):
            shutil.rmtree(leftover, ignore_errors=True)
        shutil.copytree(model, partial)
        _require_same(str(partial), expected, answer(partial, questions))
        if target.exists():
            target.rename(old)
        durable.place(partial, target)
    except OSError as error:
        raise PublishError(f"publish.folder: {target} cannot be written: {error}; {_retry(model)}") from None
    shutil.rmtree(old, ignore_errors=True)
    return str(target)


def _to_hub(
    section: PublishSection, model: Path, questions: list[str], expected: list[str], answer: Answer
) -> dict[str, str]:
    api, repo = HfApi(token=os.environ["HF_TOKEN"]), str(section.repo)
    try:
        sha = _retried(lambda: _commit(api, section, model))
        with tempfile.TemporaryDirectory(prefix="kickoff-published-") as fresh:
            _retried(lambda: snapshot_download(repo, revision=sha, local_dir=fresh, token=os.environ["HF_TOKEN"]))
            _require_same(f"{repo}@{sha}", expected, answer(Path(fresh), questions))
        if section.tag is not None:
            _retried(lambda: _tag(api, repo, str(section.tag), sha))
    except FAILURES as error:
        raise PublishError(f"publishing to {repo} failed: {_one_line(error)}; {_retry(model)}") from None
    return {"repo": repo, "revision": sha, "url": f"{api.endpoint}/{repo}/tree/{sha}"}


def _commit(api: HfApi, section: PublishSection, model: Path) -> str:
    """Upload everything in one commit, in place of whatever was there; no new commit if nothing differs."""
    repo = str(section.repo)
    api.create_repo(repo, private=section.private, exist_ok=True)
    if section.branch is not None:
        api.create_branch(repo, branch=section.branch, exist_ok=True)
    done = api.upload_folder(
        repo_id=repo,
        folder_path=model,
        revision=section.branch,
        delete_patterns="*",
        commit_message="Publish a model fine-tuned with Kickoff",
    )
    return done.oid


def _tag(api: HfApi, repo: str, tag: str, sha: str) -> None:
    there = {ref.name: ref.target_commit for ref in api.list_repo_refs(repo).tags}
    if there.get(tag, sha) != sha:
        raise PublishError(
            f"publish.tag: {repo} has {tag} already, on {there[tag]}; published as {sha} without a tag: choose another"
        )
    if tag not in there:
        api.create_tag(repo, tag=tag, revision=sha)


def _retried(call: Callable[[], Result]) -> Result:
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
            log.warning(f"publish: {_one_line(error)}; again in {wait:.0f} s")
            time.sleep(wait)
    return call()


def _require_same(place: str, expected: list[str], found: list[str]) -> None:
    if expected != found:
        differing = next(pair for pair in zip(expected, found, strict=True) if pair[0] != pair[1])
        raise PublishError(f"{place} answers {differing[1]!r}, expected {differing[0]!r} as here; do not serve it")


def _require_folder(target: Path) -> None:
    if target.exists() and (not target.is_dir() or (any(target.iterdir()) and not (target / "run.yaml").exists())):
        raise ConfigError(f"publish.folder: {target} holds something that is no published model; choose another folder")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"publish.folder: {target.parent} cannot be made: {error.strerror}") from None
    if not os.access(target.parent, os.W_OK):
        raise ConfigError(f"publish.folder: {target.parent} is not writable; choose another folder")


def _require_may_write(api: HfApi, section: PublishSection, create: bool) -> None:
    repo = str(section.repo)
    user = api.whoami()
    if create:
        api.create_repo(repo, private=section.private, exist_ok=True)
    try:
        api.auth_check(repo, write=True)
    except RepositoryNotFoundError:
        _require_may_create(repo, user)


def _require_may_create(repo: str, user: dict[str, Any]) -> None:
    owner = repo.split("/")[0]
    owners = [user["name"], *(org["name"] for org in user.get("orgs", []))]
    role = user.get("auth", {}).get("accessToken", {}).get("role")
    if owner not in owners or role == "read":
        found = f"a {role} token of {user['name']}"
        raise ConfigError(f"publish.repo: {repo} is missing and HF_TOKEN ({found}) may not make it; use a write token")


def _unanswered(error: Exception) -> PublishError:
    return PublishError(f"the Hub does not answer: {_one_line(error)}; nothing was lost, run the same command again")


def _retry(model: Path) -> str:
    return f"the model is kept in {model}; publish it with: python -m job publish {model.with_name('run.yaml')}"


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
