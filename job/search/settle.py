"""Settle: finds the settings of a run that are `auto`, so that every key has a value before the training.

It knows the run folder. It does not know how a search goes.
"""

from job.run.folder import RunFolder
from job.run.machine import Machine
from job.search import search


def settle(folder: RunFolder, machine: Machine) -> None:
    """Find the settings that are `auto` and not found yet; run.yaml then has them, and the base decodes by them."""
    config = folder.pinned_config()
    machine.wait()  # process 0 must not pin before all have read
    if config.auto_keys():
        with folder.phase("search", "trying settings on a part of the training rows", machine.rank):
            search.search(config, folder, machine)
        if machine.rank == 0:
            folder.pin()
    if machine.rank == 0 and config.model.kind == "generator":
        folder.set_generation(folder.pinned_config().model)
    machine.wait()
