"""The stage that trains, as a process of its own, alone or under `job.launch`; it is no test.

`train_process.py ORDER`: a JSON file {"section", "rows", "base", "run", "stop", "full"}. A run is a folder, or one for
each rank. It ends after step `stop` as after a signal. The memory of process `full` does not suffice for the second
step.
"""

import json
import sys
from pathlib import Path

import datasets
import torch

from job.config.schema import TrainSection
from job.errors import KickoffError
from job.run import machine
from job.training.learner import Learner, Outcome
from job.training.train import train


def main(order: Path) -> int:
    torch.set_num_threads(1)
    wanted = json.loads(order.read_text())
    section = TrainSection.model_validate(wanted["section"])
    here = machine.detect("cpu", section.precision)
    unchanged = Learner.step

    def step(learner: Learner, rows: list[int], stop: bool, save: bool) -> Outcome:
        if here.rank == wanted["full"] and learner.done == 1:
            raise MemoryError
        return unchanged(learner, rows, stop or learner.done + 1 == wanted["stop"], save)

    Learner.step = step  # type: ignore[method-assign]
    runs = wanted["run"]
    run = Path(runs if isinstance(runs, str) else runs[here.rank])
    try:
        train(section, 1, datasets.load_from_disk(wanted["rows"]), Path(wanted["base"]), run, here)
    except KickoffError as error:
        print(error, flush=True)
        return error.exit_code
    return 0


if __name__ == "__main__":
    import logging

    logging.basicConfig(level=logging.INFO, stream=sys.stdout)
    sys.exit(main(Path(sys.argv[1])))
