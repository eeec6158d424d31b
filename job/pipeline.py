"""The commands of the job, each as the order of its stages.

What is finished is not done again, so calling `run` once more after an interruption or a failed push goes on where it
stopped. What a stage does, and when its result is out of date, is decided elsewhere.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import partial

from job.config.schema import Config
from job.data import stages
from job.data.local_files import existing_paths, local_data
from job.errors import DataError, PublishError
from job.evaluation import evaluate, gate, measure
from job.hub import client
from job.prepare import prepare
from job.publishing import publish
from job.report import report
from job.run import machine
from job.run.facts import Answers, Metrics
from job.run.folder import RunFolder
from job.run.machine import Machine
from job.training import train

log = logging.getLogger(__name__)


def run(config: Config) -> str:
    """Every stage in order; the sentence that says what came of it."""
    client.configure(config.publish.timeout_seconds)
    here = machine.detect(config.train.device, config.train.precision)
    folder = RunFolder(config)
    with folder.held() if here.rank == 0 else nullcontext():
        if here.rank == 0:
            _preflight(config, folder)
            folder.claim(local_data(config.dataset, folder.finished()))
            prepare(config, folder)
            folder.pin()
        here.wait()
        if not folder.is_trained():
            with folder.phase("train", "teaching the model the training rows", here.rank):
                train.train(config.train, config.seed, stages.load_encoded(folder), folder / "base", folder.path, here)
        if here.rank == 0:
            folder.discard("checkpoints")
        if measure.is_outdated(config, folder, here):
            _measure(config, folder, here)
        return _deliver(folder, here) if here.rank == 0 else "trained and measured; process 0 goes on alone"


def evaluate_only(config: Config) -> str:
    """Measure again what `run` left, and write report and card anew."""
    with _finished(config) as (folder, here):
        _measure(config, folder, here)
        report.report(folder.path, folder.pinned())
        publish.assemble(folder.path, folder.pinned())
        return f"measured {folder / 'model'}: {report.brief(folder.require(Metrics))}"


def publish_only(config: Config) -> str:
    """Publish what `run` left; the gate is asked again."""
    with _finished(config) as (folder, here):
        publish.preflight(config, existing_paths(config.dataset))
        if measure.is_outdated(config, folder, here):
            _measure(config, folder, here)
        return _deliver(folder, here)


def _measure(config: Config, folder: RunFolder, here: Machine) -> None:
    measure.measure(config, folder, here)
    if here.rank == 0:
        log.info("evaluate:\n" + report.summary(folder.require(Metrics), folder.require(Answers)))


def _deliver(folder: RunFolder, here: Machine) -> str:
    """Report, gate, card, and the way out; the sentence that says where the model is."""
    config = folder.pinned()
    with folder.phase("report", "writing the report and the model card"):
        report.report(folder.path, config)
        publish.assemble(folder.path, config)
    gate.refuse(folder.require(Metrics).gate, folder / "model")
    with folder.phase("publish", "publishing the model, and asking the published copy the same questions"):
        published = publish.publish(
            config.publish, folder / "model", stages.sample_questions(folder), partial(evaluate.answer, machine=here)
        )
    folder.write(published)
    report.report(folder.path, config)
    return publish.sentence(published, folder / "model")


@contextmanager
def _finished(config: Config) -> Iterator[tuple[RunFolder, Machine]]:
    client.configure(config.publish.timeout_seconds)
    folder = RunFolder(config)
    if not folder.is_trained():
        raise DataError(f"output: {folder.path} holds no trained model; expected one left by `python -m job run`")
    with folder.held():
        folder.claim(local_data(config.dataset, folder.finished()))
        prepare(config, folder)  # what was removed to be made anew
        folder.pin()
        yield folder, machine.detect(config.train.device, config.train.precision)


def _preflight(config: Config, folder: RunFolder) -> None:
    """A run that goes on needs the Hub at its end only: one that is down now does not hold it up."""
    try:
        publish.preflight(config, existing_paths(config.dataset))
    except PublishError as error:
        if not folder.has_trained():
            raise
        log.warning(f"publish: {error}; going on, since training had begun")
