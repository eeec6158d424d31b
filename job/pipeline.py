"""Pipeline: the commands of the job, each as the order of its stages.

Finished stages are not repeated, so that `run` resumes where an interruption or a failed upload stopped it. What a
stage does, and when its result is out of date, is decided elsewhere.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import partial

from job.config.schema import Config
from job.data import stages
from job.data.local_files import existing_paths, local_data
from job.errors import DataError, PublishError
from job.evaluation import gate, measure
from job.hub import client
from job.prepare import prepare
from job.publishing import publish
from job.report import report
from job.report.rendering import kept_weights
from job.run.facts import Answers, Metrics
from job.run.folder import RunFolder
from job.run.machine import Machine, detect
from job.search import settle
from job.training import train

log = logging.getLogger(__name__)


def run(config: Config) -> str:
    """Run every stage in order; return the sentence that says what the run has done.

    Raises:
        KickoffError: The run cannot go on; its class sets the exit code.
    """
    client.configure(config.publish.timeout_seconds)
    machine = detect(config.train.device, config.train.precision)
    folder = RunFolder(config)
    with folder.lock() if machine.rank == 0 else nullcontext():
        if machine.rank == 0:
            _preflight(config, folder)
            folder.open(local_data(config.dataset, folder.finished_request()))
            prepare(config, folder)
            folder.pin()
        machine.wait()
        if not folder.is_trained():
            settle.settle(folder, machine)
            with folder.phase("train", "training the model on the training rows", machine.rank):
                facts = train.train_run(folder.pinned_config(), stages.load_encoded(folder), folder.path, machine)
            if machine.rank == 0:
                log.info(f"train: the model has {kept_weights(facts)}")
        if machine.rank == 0:
            folder.discard("checkpoints")
        if measure.is_outdated(config, folder, machine):
            _measure(config, folder, machine)
        return _deliver(folder, machine) if machine.rank == 0 else "trained and measured; process 0 continues alone"


def evaluate_only(config: Config) -> str:
    """Measure a trained model again, and update its report and card."""
    with _open_trained_run(config) as (folder, machine):
        _measure(config, folder, machine)
        report.report(folder.path, folder.pinned_config())
        publish.assemble(folder.path, folder.pinned_config())
        return f"measured {folder / 'model'}: {report.brief(folder.require(Metrics))}"


def publish_only(config: Config) -> str:
    """Publish a trained model, if the gate passes."""
    with _open_trained_run(config) as (folder, machine):
        publish.preflight(config, existing_paths(config.dataset))
        if measure.is_outdated(config, folder, machine):
            _measure(config, folder, machine)
        return _deliver(folder, machine)


def _measure(config: Config, folder: RunFolder, machine: Machine) -> None:
    measure.measure(config, folder, machine)
    if machine.rank == 0:
        log.info("evaluate:\n" + report.summary(folder.require(Metrics), folder.require(Answers)))


def _deliver(folder: RunFolder, machine: Machine) -> str:
    """Write report and card, ask the gate, and publish; return the sentence that says where the model is."""
    config = folder.pinned_config()
    with folder.phase("report", "writing the report and the model card"):
        report.report(folder.path, config)
        publish.assemble(folder.path, config)
    gate.refuse(folder.require(Metrics).gate, folder / "model")
    with folder.phase("publish", "publishing the model, and verifying that the published copy gives the same answers"):
        answer = partial(measure.answerer(config), machine=machine)
        published = publish.publish(config.publish, folder / "model", stages.sample_questions(folder), answer)
    folder.write(published)
    report.report(folder.path, config)
    return publish.describe(published, folder / "model")


@contextmanager
def _open_trained_run(config: Config) -> Iterator[tuple[RunFolder, Machine]]:
    client.configure(config.publish.timeout_seconds)
    folder = RunFolder(config)
    if not folder.is_trained():
        raise DataError(f"output: {folder.path} holds no trained model; expected one left by `python -m job run`")
    with folder.lock():
        folder.open(local_data(config.dataset, folder.finished_request()))
        prepare(config, folder)  # what the user has removed
        folder.pin()
        yield folder, detect(config.train.device, config.train.precision)


def _preflight(config: Config, folder: RunFolder) -> None:
    """Check the publishing targets; a run with trained work goes on without the Hub, which it needs only at its end."""
    try:
        publish.preflight(config, existing_paths(config.dataset))
    except PublishError as error:
        if not folder.has_trained_work():
            raise
        log.warning(f"publish: {error}; continuing, since the training had started")
