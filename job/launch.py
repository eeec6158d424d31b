"""Launch: torchrun with the job's exit codes: `python -m job.launch --nproc-per-node=2 ... -m job run CONFIG`.

torchrun exits with 1 for every failure of a worker, but a Kubernetes Job decides by the exit code whether to retry.
After a signal torchrun does not report the workers' codes at all, so each worker records its own in the folder that
`outcome.CODES` names. The module takes torchrun's arguments. It knows exit codes, not what is launched.
"""

import os
import sys
import tempfile
from pathlib import Path

from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.run import main

from job.errors import Exit
from job.run import outcome, threads

_CAUSES = (Exit.CONFIG, Exit.DATA, Exit.GATE, Exit.PUBLISH, Exit.MEMORY)
"""Codes that say what is wrong, and that take precedence over the lost connections of the other workers."""


def launch(arguments: list[str]) -> int:
    """Run torchrun to its end.

    Args:
        arguments: torchrun's command line.

    Returns:
        The exit code of the worker that failed; after a signal, the code that the workers recorded.
    """
    with tempfile.TemporaryDirectory(prefix="kickoff-codes-") as codes:
        os.environ[outcome.CODES] = codes
        threads.configure()  # here, because each worker would count the others' start as load
        try:
            main(arguments)
        except ChildFailedError as error:
            _, failure = error.get_first_failure()
            # if one worker ends, the others lose the connection and end with 1, sometimes within the same second
            causes = [other.exitcode for other in error.failures.values() if other.exitcode in _CAUSES]
            code = causes[0] if causes else failure.exitcode
            # a negative code is the signal that killed the worker; shells and Kubernetes report 128 + signal
            return code if code >= 0 else 128 - code
        except SignalException:
            return _after_signal(Path(codes))
    return Exit.DONE


def _after_signal(codes: Path) -> int:
    """Return the code of a worker with a cause, else 1 if one failed, else 75: the signal itself ends the others."""
    recorded = outcome.read_codes(codes)
    causes = [code for code in recorded if code in _CAUSES]
    return causes[0] if causes else Exit.FAILED if Exit.FAILED in recorded else Exit.INTERRUPTED


if __name__ == "__main__":
    sys.exit(launch(sys.argv[1:]))
