"""Publish: the tuned model as a complete repository, on the Hub in one commit, or in a folder.

It knows the order: complete the folder, publish it, say where it is. The parts are in `publishing`. It does not know
how a model answers: the pipeline hands it a function for that, by which what was published is asked the same
questions as what is here.
"""

import shlex
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from job.config.schema import Config, PublishSection
from job.errors import ConfigError, PublishError
from job.publishing import card, contract, paths
from job.publishing import preflight as before_training
from job.publishing.folder import to_folder
from job.publishing.hub import to_hub
from job.publishing.verify import Answer, Samples
from job.run import durable
from job.run.facts import Published


def preflight(config: Config, data: Sequence[Path], create: bool = True) -> None:
    """Make sure before training that publishing can work after it.

    Args:
        data: the local files with the rows.
        create: make the repository if it is missing; else only look whether the token might.

    Raises:
        ConfigError: a folder or a repository that must not be replaced, or a token that may not write.
        PublishError: the Hub does not answer. What is done so far is kept.
    """
    before_training.require(config, data, create)


def assemble(run: Path, config: Config) -> None:
    """Complete `run/model` to the repository of the contract: card, config, metrics, loss curve."""
    model = run / "model"
    for name in ("metrics.json", "loss.png"):
        durable.write(model / name, (run / name).read_bytes())
    durable.write(model / "run.yaml", paths.run_yaml(config))
    durable.write(model / "README.md", card.card(run, config))
    contract.put_mark(model)


def publish(section: PublishSection, model: Path, questions: list[str], answer: Answer) -> Published:
    """Bring the repository in `model` to where the config says, and ask it there.

    Returns:
        Where it is now; nothing of it if the config names neither a folder nor a repository.

    Raises:
        PublishError: it did not arrive, answers otherwise than here, or there is by now something that must not be
            replaced. The model is kept, and the error tells how to publish it.
    """
    missing = contract.missing(model)
    if missing:
        raise PublishError(f"{model} is not complete, missing: {', '.join(missing)}; run again")
    published = Published()
    if section.folder is None and section.repo is None:
        return published
    samples = Samples(model, questions, answer)
    try:
        if section.folder is not None:
            published = replace(published, folder=to_folder(section, model, samples))
        if section.repo is not None:
            commit = to_hub(section, model, samples)
            published = replace(published, repo=commit.repo, revision=commit.sha, url=commit.url)
    except (ConfigError, PublishError) as error:
        command = f"python -m job publish {shlex.quote(str(model.parent / 'run.yaml'))}"
        raise PublishError(f"{error}; the model is kept in {model}; publish it with: {command}") from None
    return published


def sentence(published: Published, model: Path) -> str:
    """What to tell the user."""
    if published == Published():
        return f"done, not published: neither publish.repo nor publish.folder is set; the model is in {model}"
    where = [published.folder] if published.folder is not None else []
    where += [f"{published.repo}@{published.revision}"] if published.repo is not None else []
    return f"done: published {' and '.join(where)}, asked there and found to answer as here"
