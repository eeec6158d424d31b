"""Preflight: checks before training whether publishing can work after it.

It knows folders that must not overlap, the token and the repository. It changes nothing, except that it creates the
parent folder and, if told to, the repository.
"""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi, ModelCard, ModelCardData
from huggingface_hub.errors import HfHubHTTPError, LocalTokenNotFoundError, RepositoryNotFoundError

from job.config.schema import Config, PublishSection
from job.errors import ConfigError, PublishError
from job.hub.errors import FAILURES, retry, status
from job.publishing import folder, hub
from job.run.messages import one_line


def require(config: Config, data: Sequence[Path], create: bool) -> None:
    """Require that folder and repository can be published to.

    Args:
        config: The run's config.
        data: The local files with the rows.
        create: Create the repository if it is missing; else only check whether the token may.

    Raises:
        ConfigError: The folder must not be replaced, the token is missing or may not write, or the repository holds
            something else.
        PublishError: The Hub does not answer; finished work is kept.
    """
    if config.publish.folder is not None:
        _require_apart(config, data)
        _require_folder(config.publish)
    if config.publish.repo is not None:
        _require_repo(config.publish, create, moving=not (Path(config.output) / "model").exists())


def _require_apart(config: Config, data: Sequence[Path]) -> None:
    """Raise ConfigError if replacing the folder would touch a run, its data, its base, or a working folder."""
    named = Path(str(config.publish.folder))
    target = named.resolve()
    output = Path(config.output).resolve()
    if _within(target, output) or _within(output, target):
        raise ConfigError(
            f"publish.folder: expected a folder apart from output; found {named}, and output is {config.output}: one "
            "contains the other, and publishing replaces its folder; choose another one"
        )
    models = {
        "model.base": config.model.base,
        "model.ground": config.model.ground,
        "dedupe.semantic_model": config.dedupe.semantic_model,
    }
    for key, model in models.items():
        used = Path(model).resolve() if model is not None and Path(model).exists() else None
        if used is not None and (_within(target, used) or _within(used, target)):
            raise ConfigError(f"publish.folder: {named} overlaps {key}, {model}; choose another folder")
    read = next((path for path in data if _within(path.resolve(), target)), None)
    if read is not None:
        raise ConfigError(f"publish.folder: {named} holds {read}, which this run reads; choose another folder")
    for what, path in (("the working folder", Path.cwd()), ("your home folder", _home())):
        if path is not None and _within(path.resolve(), target):
            raise ConfigError(f"publish.folder: {named} is or holds {what}; choose a folder of its own for the model")
    run = next((path for path in (target, *target.parents) if _is_run(path)), None)
    if run is not None:
        raise ConfigError(
            f"publish.folder: {named} is in {run}, the run folder of another run; choose a folder outside of it"
        )


def _within(inner: Path, outer: Path) -> bool:
    """Return whether a path is another one or lies in it, also through links and on file systems that ignore case."""
    for path in (inner, *inner.parents):
        if str(path).casefold() == str(outer).casefold():
            return True
        if path.exists() and outer.exists() and path.samefile(outer):
            return True
    return False


def _is_run(path: Path) -> bool:
    """Return whether a folder is a run folder, by Kickoff's own files: others may have a run.yaml or checkpoints/."""
    names = {name for name in ("lock.json", "asked.json", "data.json", "base/base.json") if (path / name).exists()}
    is_started = "lock.json" in names and bool(names & {"asked.json", "data.json"})
    return (path / "run.yaml").exists() and (is_started or "base/base.json" in names)


def _home() -> Path | None:
    try:
        return Path.home()
    except RuntimeError:  # a user id without a passwd entry, as in containers
        return None


def _require_folder(section: PublishSection) -> None:
    named = Path(str(section.folder))
    target = named.resolve()
    folder.require_replaceable(section)
    if target.is_mount():
        raise ConfigError(
            f"publish.folder: {named} is a mount point, which cannot be replaced as a whole; name a folder "
            f"in it, such as {named / 'model'}"
        )
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"publish.folder: {target.parent} cannot be created: {error.strerror}") from None
    if not os.access(target.parent, os.W_OK):
        raise ConfigError(f"publish.folder: {target.parent} is not writable; choose another folder")
    folder.require_free_sibling(target)


def _require_repo(section: PublishSection, create: bool, moving: bool) -> None:
    """Check the repository; `moving`: the model is not trained yet, so that the branch will get a new commit."""
    if not os.environ.get("HF_TOKEN"):
        raise ConfigError(
            f"publish.repo is {section.repo}, and HF_TOKEN is not set; set it to a token with write access"
        )
    api = HfApi(token=os.environ["HF_TOKEN"])
    try:
        retry(lambda: _require_card(section))
        retry(lambda: _require_may_write(api, section, create))
        retry(lambda: hub.require_replaceable(api, section))
        retry(lambda: hub.require_tag_free(api, section, moving))
    except (HfHubHTTPError, LocalTokenNotFoundError) as error:
        code = status(error)
        if code in (401, 403, 404):
            raise ConfigError(
                f"publish.repo: HF_TOKEN may not write to {section.repo} (the Hub answered {code}); give it a token "
                "with write access, or name a repository of your own"
            ) from None
        raise _no_answer(error) from None
    except FAILURES as error:
        raise _no_answer(error) from None


def _require_card(section: PublishSection) -> None:
    """Raise ConfigError if the Hub does not accept a card with this licence and language."""
    keys = {"publish.license": section.license, "publish.language": section.language}
    given = {key: value for key, value in keys.items() if value is not None}
    if not given:
        return
    data = ModelCardData(license=section.license, language=section.language)
    try:
        ModelCard(f"---\n{data.to_yaml()}\n---").validate()
    except json.JSONDecodeError:  # the response is not the Hub's, so the Hub has failed
        raise
    except ValueError as error:
        values = " and ".join(f"{key} {value!r}" for key, value in given.items())
        raise ConfigError(f"{values}: the Hub does not take them on a model card: {_reasons(error)}") from None


def _reasons(error: ValueError) -> str:
    try:
        return "; ".join(str(problem["message"]) for problem in json.loads(str(error))["errors"])
    except (ValueError, TypeError, KeyError):
        return one_line(error, most=None)


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
        token = f"a {role} token of {user['name']}"
        raise ConfigError(
            f"publish.repo: {repo} does not exist, and HF_TOKEN ({token}) may not create it; use a token with "
            "write access"
        )


def _no_answer(error: Exception) -> PublishError:
    return PublishError(
        f"the Hub does not answer: {one_line(error, most=None)}; nothing was lost, run the same command again"
    )
