"""`python -m hpc.verify.attempt RUN`: one attempt of a trial, in a process of its own."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from hpc.node.execution import executor_of
from hpc.node.fork import end_with
from hpc.recovery.diagnosis import StopRequest
from hpc.works import work_of
from relay.errors import RelayError
from relay.log import start_log
from relay.program.generators import reseed_torch
from relay.progress import PlainReporter
from relay.runs.lifecycle import attempt
from relay.runs.rundir import RunDir


def main(run: RunDir) -> int:
    """Execute the run. Returns the exit code; what happened stands in its attempts.jsonl."""
    start_log()
    # Without the command that compares, it is worth nothing.
    end_with(os.getppid())
    stop = StopRequest()
    stop.install()
    work = work_of(run.sweep().kind)
    work.preload()
    reseed_torch()
    try:
        attempt(run, executor_of(work, stop.seconds_left), stop.requested, PlainReporter())
    except RelayError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(RunDir(Path(sys.argv[1]))))
