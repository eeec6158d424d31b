"""The stage that trains, as a process of its own, alone or as one of several; it is no test.

ORDER is a JSON file {"section", "rows", "base", "run", "stop", "full", "short", "retriever"}. A run is
a folder, or one for each rank. It ends after step `stop` as after a signal. The memory of process `full` does not
suffice for the second step; that of process short[0] does not once, amid the backward pass, when it comes to the weight
short[1]. With the section `retriever` it trains an encoder, and short[1] is the number of a call of it, or "loss".
"""

import json
import sys
from functools import partial
from pathlib import Path
from typing import Any

import datasets
import torch

from job.config.schema import RetrieverSection, TrainSection
from job.errors import KickoffError
from job.model.loss import Loss
from job.run import machine
from job.training import gradients
from job.training.contrastive import Contrastive
from job.training.next_token import NextToken
from job.training.objective import Load
from job.training.step import Learner, Outcome
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
    # several buckets, although the model is small
    gradients.DistributedDataParallel = partial(gradients.DistributedDataParallel, bucket_cap_mb=0.02)  # type: ignore[misc]
    load: Load = NextToken
    if wanted["retriever"] is not None:
        load = partial(Contrastive, retriever=RetrieverSection.model_validate(wanted["retriever"]))
    if wanted["short"] and here.rank == wanted["short"][0]:
        (run_out_at if load is NextToken else run_out_encoding)(wanted["short"][1])
    runs = wanted["run"]
    run = Path(runs if isinstance(runs, str) else runs[here.rank])
    try:
        train(section, 1, datasets.load_from_disk(wanted["rows"]), Path(wanted["base"]), run, here, load)
    except KickoffError as error:
        print(error, flush=True)
        return error.exit_code
    return 0


def run_out_at(name: str) -> None:
    """Raise once in the second step: before a pass, if no weight is named, or while the gradient of one is added."""
    made = gradients.AllProcesses.__init__

    def make(self: gradients.AllProcesses, loss: Loss) -> None:
        left = [2]

        def count(_: object = None) -> None:
            left[0] -= 1
            if left[0] == 0:
                raise MemoryError

        def add(*arguments: Any, **options: Any) -> torch.Tensor:
            count()
            return gradients.AllProcesses.add(self, *arguments, **options)

        def abandon() -> None:
            print(f"failed after {self._sent} buckets", flush=True)
            gradients.AllProcesses.abandon(self)

        made(self, loss)
        self.abandon = abandon  # type: ignore[method-assign]
        if name:
            dict(loss.named_parameters())[f"model.{name}"].register_hook(count)
        else:
            self.add = add  # type: ignore[method-assign]

    gradients.AllProcesses.__init__ = make  # type: ignore[method-assign]


def run_out_encoding(at: str) -> None:
    """Raise once: in that call of an encoder, or while the loss of the first step is computed."""
    name = "_losses" if at == "loss" else "_encode"
    left, unchanged = [1 if at == "loss" else int(at)], getattr(Contrastive, name)

    def fail_once(self: Contrastive, *arguments: Any) -> torch.Tensor:
        left[0] -= 1
        if left[0] == 0:
            raise MemoryError
        result: torch.Tensor = unchanged(self, *arguments)
        return result

    setattr(Contrastive, name, fail_once)


if __name__ == "__main__":
    import logging

    logging.basicConfig(level=logging.INFO, stream=sys.stdout)
    sys.exit(main(Path(sys.argv[1])))
