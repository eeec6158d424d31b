"""Measure: measures the tuned model and the base model on the same test rows, and asks the gate.

It writes metrics.json and answers.json to the run folder. A model that was measured before an interruption is not
measured again. It knows the run folder and the order; `evaluate` measures one model.
"""

import hashlib
import json
import logging
from collections.abc import Callable
from typing import Any

import datasets

from job.config.schema import Config
from job.data.made_rows import originals
from job.data.stages import load_encoded
from job.evaluation import confidence, evaluate, gate, retrieval
from job.retrieval import neighbours, retriever
from job.retrieval.threshold import halves
from job.run.facts import Answer, Answers, Measured, Metrics, ModelMetrics
from job.run.folder import RunFolder
from job.run.generation import decoding_settings
from job.run.machine import Machine
from job.run.retriever_facts import UnknownQuestions

log = logging.getLogger(__name__)


def measure(config: Config, folder: RunFolder, machine: Machine) -> None:
    """Measure both models; process 0 writes metrics and answers.

    Args:
        config: The run's config.
        folder: The run folder, with both models and the encoded rows.
        machine: Device, precision and processes. A retriever is measured by process 0 alone.

    Raises:
        OutOfMemory: A model, or a single row, does not fit into memory.
    """
    parts = load_encoded(folder)
    settings = _settings(config, folder)
    measured = Measured(settings, _read_measured(folder, settings, machine))
    is_retriever = config.model.kind == "retriever"
    if is_retriever and machine.rank > 0:
        return
    bm25: ModelMetrics | None = None
    bm25_answers: list[Answer] = []
    with folder.phase("evaluate", "measuring the tuned and the base model on the test rows", machine.rank):
        if is_retriever:
            bm25, bm25_answers = _add_indexes(config, folder, parts, machine)
        for name in ("model", "base") if len(parts["test"]) else ():
            if name not in measured.of:
                measured.of[name] = _measure_model(config, folder, parts, machine, name)
                if machine.rank == 0:
                    folder.write(measured)
    if machine.rank > 0:
        return
    tuned, answers = measured.of.get("model", (None, []))
    base, base_answers = measured.of.get("base", (None, []))
    sure = None if is_retriever else confidence.calibrate(answers, config.evaluate.min_confidence, config.seed)
    decision = gate.check(config.evaluate, tuned, base, config.model.kind, bm25)
    decision = gate.require_confidence(decision, config.evaluate, sure)
    folder.discard("metrics.json")  # a metrics.json means that answers.json belongs to it
    folder.write(Answers(answers, base_answers, bm25_answers))
    folder.write(Metrics(settings, tuned, base, decision, bm25, sure))
    folder.discard("measured.json")


def answerer(config: Config) -> Callable[..., list[str]]:
    """Choose the function that answers questions with the model in a folder: (folder, questions, machine)."""
    return evaluate.answer if config.model.kind == "generator" else retriever.answer


def _add_indexes(
    config: Config, folder: RunFolder, parts: datasets.DatasetDict, machine: Machine
) -> tuple[ModelMetrics | None, list[Answer]]:
    """Add the index of the answers to both encoders; return metrics and answers of BM25 on the same rows."""
    setting, measuring = _unknown(config, folder)
    parts = datasets.DatasetDict(train=originals(parts["train"]), test=parts["test"])
    for name in ("model", "base"):
        threshold = retriever.build(folder / name, parts, config.retriever, setting, machine)
        log.info(f"evaluate: the {name}'s threshold is {threshold}, below which it does not know")
    neighbours.write(folder / "model")  # the base is not served
    return retrieval.floor(parts, measuring) if len(parts["test"]) else (None, [])


def _measure_model(
    config: Config, folder: RunFolder, parts: datasets.DatasetDict, machine: Machine, name: str
) -> tuple[ModelMetrics, list[Answer]]:
    if config.model.kind == "retriever":
        return retrieval.evaluate(folder / name, parts["test"], _unknown(config, folder)[1], machine)
    unknown = _unknown(config, folder)[1]
    return evaluate.evaluate(config.evaluate, config.seed, folder / name, parts["test"], machine, name, unknown)


def _unknown(config: Config, folder: RunFolder) -> tuple[list[str], list[str]]:
    """Give the unknown questions that set the threshold, and those that measure it; none if the config names none."""
    found = folder.read(UnknownQuestions) if config.retriever.unknown is not None else None
    return halves(found.questions, config.seed) if found is not None else ([], [])


def is_outdated(config: Config, folder: RunFolder, machine: Machine) -> bool:
    """Return whether there are no metrics with the current settings.

    Barrier: no process may write metrics before all have read them.
    """
    metrics = folder.read(Metrics)
    machine.wait()
    return metrics is None or metrics.settings != _settings(config, folder)


def _settings(config: Config, folder: RunFolder) -> dict[str, Any]:
    """Return all settings that the metrics depend on, besides the models and the rows."""
    settings = config.evaluate.model_dump(mode="json")
    # they are published: a hash, since neither the questions nor the path of their file are for everybody
    asked = hashlib.sha256(json.dumps(_unknown(config, folder)).encode()).hexdigest()
    if config.model.kind == "generator":
        decoding = decoding_settings(folder.pinned_config().model)
        return {
            **settings,
            "max_new_tokens": config.model.max_new_tokens,
            **({"decoding": decoding} if decoding else {}),
            **({"unknown_sha256": asked} if config.model.ground is not None else {}),
        }
    section = config.retriever.model_dump(mode="json", exclude={"unknown"})
    return {**settings, "retriever": section, "unknown_sha256": asked}


def _read_measured(
    folder: RunFolder, settings: dict[str, Any], machine: Machine
) -> dict[str, tuple[ModelMetrics, list[Answer]]]:
    """Read what an interrupted evaluation measured: {model's name: (metrics, answers)}.

    Barrier: no process may write before all have read.
    """
    before = folder.read(Measured)
    machine.wait()
    return dict(before.of) if before is not None and before.settings == settings else {}
