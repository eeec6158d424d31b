"""torchrun with the job's exit codes: `python -m job.launch --nnodes=2 --nproc-per-node=1 ... -m job run CONFIG`.

torchrun itself ends with 1 whatever its workers ended with, and a Kubernetes Job decides by the code whether to try
again. It takes torchrun's arguments. It knows exit codes; it does not know what is launched.
"""

import sys

from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.run import main

from job.errors import Exit


def launch(arguments: list[str]) -> int:
    """Run torchrun to its end; the exit code of the worker that failed first, or 75 after a signal."""
    try:
        main(arguments)
    except ChildFailedError as error:
        _, failure = error.get_first_failure()
        # a negative number is the signal that killed the worker; shells and Kubernetes count it from 128
        return failure.exitcode if failure.exitcode >= 0 else 128 - failure.exitcode
    except SignalException:
        return Exit.INTERRUPTED
    return Exit.DONE


if __name__ == "__main__":
    sys.exit(launch(sys.argv[1:]))
