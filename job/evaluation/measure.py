"""Measure: measures the tuned model and the base model on the same test rows, and asks the gate.

It writes metrics.json and answers.json to the run folder. A model that was measured before an interruption is not
measured again. It knows the run folder and the order; `evaluate` measures one model.
"""

import logging
from typing import Any

from job.config.schema import Config
from job.data.stages import load_encoded
from job.evaluation import evaluate, gate
from job.run.facts import Answer, Answers, Measured, Metrics, ModelMetrics
from job.run.folder import RunFolder
from job.run.machine import Machine

log = logging.getLogger(__name__)


def measure(config: Config, folder: RunFolder, machine: Machine) -> None:
    """Measure both models; process 0 writes metrics and answers.

    Args:
        config: The run's config.
        folder: The run folder, with both models and the encoded rows.
        machine: Device, precision and processes.

    Raises:
        OutOfMemory: A model, or a single row, does not fit into memory.
    """
    test = load_encoded(folder)["test"]
    settings = _settings(config)
    measured = Measured(settings, _read_measured(folder, settings, machine))
    with folder.phase(
        "evaluate",
        "measuring the tuned and the base model on the test rows",
        machine.rank,
    ):
        for name in ("model", "base") if len(test) else ():
            if name not in measured.of:
                measured.of[name] = evaluate.evaluate(config.evaluate, config.seed, folder / name, test, machine, name)
                if machine.rank == 0:
                    folder.write(measured)
    if machine.rank > 0:
        return
    tuned, answers = measured.of.get("model", (None, []))
    base, base_answers = measured.of.get("base", (None, []))
    folder.discard("metrics.json")  # a metrics.json means that answers.json belongs to it
    folder.write(Answers(answers, base_answers))
    folder.write(Metrics(settings, tuned, base, gate.check(config.evaluate, tuned, base)))
    folder.discard("measured.json")


def is_outdated(config: Config, folder: RunFolder, machine: Machine) -> bool:
    """Return whether there are no metrics with the current settings.

    Barrier: no process may write metrics before all have read them.
    """
    metrics = folder.read(Metrics)
    machine.wait()
    return metrics is None or metrics.settings != _settings(config)


def _settings(config: Config) -> dict[str, Any]:
    """Return all settings that the metrics depend on, besides the models and the rows."""
    return {**config.evaluate.model_dump(mode="json"), "max_new_tokens": config.model.max_new_tokens}


def _read_measured(
    folder: RunFolder, settings: dict[str, Any], machine: Machine
) -> dict[str, tuple[ModelMetrics, list[Answer]]]:
    """Read what an interrupted evaluation measured: {model's name: (metrics, answers)}.

    Barrier: no process may write before all have read.
    """
    before = folder.read(Measured)
    machine.wait()
    return dict(before.of) if before is not None and before.settings == settings else {}
