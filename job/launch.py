"""torchrun with the job's exit codes: `python -m job.launch --nnodes=2 --nproc-per-node=1 ... -m job run CONFIG`.

torchrun itself ends with 1 whatever its workers ended with, and a Kubernetes Job decides by the code whether to try
again. It takes torchrun's arguments. It knows exit codes; it does not know what is launched.
"""

import sys

from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.run import main

from job.errors import Exit

_REASONS = (Exit.CONFIG, Exit.DATA, Exit.GATE, Exit.PUBLISH, Exit.MEMORY)
"""Codes that say what a retry does not cure or what is still to be done, so that they go before a lost connection."""


def launch(arguments: list[str]) -> int:
    """Run torchrun to its end; the exit code of the worker that failed, or 75 after a signal."""
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
        return Exit.INTERRUPTED
    return Exit.DONE


if __name__ == "__main__":
    sys.exit(launch(sys.argv[1:]))
