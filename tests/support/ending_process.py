"""The job as a process under `job.launch`, which waits for a signal and then ends as it is told; it is no test.

`ending_process.py ENDS CONFIG`: how each rank ends, such as `interrupted,full`. It says "ready" when it waits.
"""

import errno
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

from job import __main__ as command_line
from job.config.schema import Config
from job.errors import ConfigError, Interrupted
from job.run import interrupt

ENDS: dict[str, BaseException] = {
    "interrupted": Interrupted("stopped at step 7"),
    "full": OSError(errno.ENOSPC, "No space left on device"),
    "config": ConfigError("model.base: another one"),
    "lost": RuntimeError("[gloo] Connection closed by peer [127.0.0.1]:1"),
    "defect": ValueError("ours"),
}


def main(ends: list[str], config: Path) -> None:
    def stage(config: Config) -> str:
        with interrupt.defer() as asked:
            print(f"ready {os.environ['RANK']}", flush=True)
            while not asked():
                time.sleep(0.01)
            raise ENDS[ends[int(os.environ["RANK"])]]

    def find(command: str) -> Callable[[Config], str]:
        return stage

    command_line._command = find
    command_line.app(["run", str(config)])


if __name__ == "__main__":
    main(sys.argv[1].split(","), Path(sys.argv[2]))
