"""Publish: publishes the tuned model as a complete repository, on the Hub in one commit, or in a folder.

It knows the order: complete the folder, publish it, verify the copy. The steps are in the other modules of
`publishing`. It does not know how a model answers: the pipeline passes a function for that.
"""

import shlex
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from job.config.schema import Config, PublishSection
from job.errors import ConfigError, PublishError
from job.publishing import card, confidence, contract, paths
from job.publishing import preflight as before_training
from job.publishing.folder import publish_to_folder
from job.publishing.hub import publish_to_hub
from job.publishing.verify import Answer, Samples
from job.run import durable, fact_files
from job.run.facts import Metrics, Published


def preflight(config: Config, data: Sequence[Path], create: bool = True) -> None:
    """Check before training that publishing can work after it.

    Args:
        config: The run's config.
        data: The local files with the rows.
        create: Create the repository if it is missing; else only check whether the token may.

    Raises:
        ConfigError: The folder or the repository must not be replaced, or the token may not write.
        PublishError: The Hub does not answer; finished work is kept.
    """
    before_training.require(config, data, create)


def assemble(run: Path, config: Config) -> None:
    """Add card, config, metrics, confidence and loss curve to `run/model`, which is then a complete repository."""
    model = run / "model"
    metrics = fact_files.read(run, Metrics)
    assert metrics is not None  # noqa: S101 - the pipeline has measured
    durable.write(model / "metrics.json", fact_files.dump(_without_times(metrics)))
    confidence.write(model, metrics.confidence)
    durable.write(model / "loss.png", (run / "loss.png").read_bytes())
    durable.write(model / "run.yaml", paths.run_yaml(config))
    durable.write(model / "README.md", card.card(run, config))
    contract.write_mark(model)


def _without_times(metrics: Metrics) -> Metrics:
    """Leave out how long it took: the same model has the same files, wherever it was measured."""
    models = [of if of is None else replace(of, answer_seconds=None) for of in (metrics.model, metrics.base)]
    return replace(metrics, model=models[0], base=models[1])


def publish(section: PublishSection, model: Path, questions: list[str], answer: Answer) -> Published:
    """Publish a complete repository to the folder and the Hub's repository that the config names, and verify it.

    Args:
        section: The config's publish section.
        model: The complete model folder.
        questions: Sample questions for the comparison.
        answer: Answers questions with the model in a folder.

    Returns:
        Where it is published; all fields None if the config names neither a folder nor a repository.

    Raises:
        PublishError: Publishing failed, the copy gives other answers, or the target must not be replaced. The model
            is kept, and the error says how to publish it.
    """
    missing = contract.missing_files(model)
    if missing:
        raise PublishError(f"{model} is incomplete: it lacks {', '.join(missing)}; run again")
    published = Published()
    if section.folder is None and section.repo is None:
        return published
    samples = Samples(model, questions, answer)
    try:
        if section.folder is not None:
            published = replace(published, folder=publish_to_folder(section, model, samples))
        if section.repo is not None:
            commit = publish_to_hub(section, model, samples)
            published = replace(published, repo=commit.repo, revision=commit.sha, url=commit.url)
    except (ConfigError, PublishError) as error:
        command = f"python -m job publish {shlex.quote(str(model.parent / 'run.yaml'))}"
        raise PublishError(f"{error}; the model is kept in {model}; publish it with: {command}") from None
    return published


def describe(published: Published, model: Path) -> str:
    """Return the sentence that tells the user where the model is."""
    if published == Published():
        return f"done, not published: neither publish.repo nor publish.folder is set; the model is in {model}"
    targets = [published.folder] if published.folder is not None else []
    targets += [f"{published.repo}@{published.revision}"] if published.repo is not None else []
    return f"done: published {' and '.join(targets)}; verified: the published copy gives the same answers"
