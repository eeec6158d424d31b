"""torchrun with the job's exit codes: `python -m job.launch --nnodes=2 --nproc-per-node=1 ... -m job run CONFIG`.

torchrun itself ends with 1 whatever its workers ended with, and a Kubernetes Job decides by the code whether to try
again. After a signal it does not tell the workers' codes at all, so each job leaves its own where `outcome.CODES` says.
It takes torchrun's arguments. It knows exit codes; it does not know what is launched.
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

_REASONS = (Exit.CONFIG, Exit.DATA, Exit.GATE, Exit.PUBLISH, Exit.MEMORY)
"""Codes that say what a retry does not cure or what is still to be done, so that they go before a lost connection."""


def launch(arguments: list[str]) -> int:
    """Run torchrun to its end; the exit code of the worker that failed, or after a signal that of the workers."""
    with tempfile.TemporaryDirectory(prefix="kickoff-codes-") as codes:
        os.environ[outcome.CODES] = codes
        threads.choose()  # for the workers, which would take each other's start for the work of others
        try:
            main(arguments)
        except ChildFailedError as error:
            _, failure = error.get_first_failure()
            # when one worker ends, the others lose the connection and end with 1, at times within the same second
            reasons = [other.exitcode for other in error.failures.values() if other.exitcode in _REASONS]
            code = reasons[0] if reasons else failure.exitcode
            # a negative number is the signal that killed the worker; shells and Kubernetes count it from 128
            return code if code >= 0 else 128 - code
        except SignalException:
            return _after_signal(Path(codes))
    return Exit.DONE


def _after_signal(codes: Path) -> int:
    """A reason if one worker has one, else a failure of its own, else 75: a signal ends most workers by itself."""
    left = outcome.left_in(codes)
    reasons = [code for code in left if code in _REASONS]
    return reasons[0] if reasons else Exit.FAILED if Exit.FAILED in left else Exit.INTERRUPTED


if __name__ == "__main__":
    sys.exit(launch(sys.argv[1:]))
