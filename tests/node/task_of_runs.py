"""A task as a program: `python -m tests.node.task_of_runs BEFORE RUN...` executes BEFORE, then these run folders.

It prints instead of putting its job back into the queue.
"""

from __future__ import annotations

import sys
from pathlib import Path

from hpc.node import task
from relay.log import start_log
from relay.runs.rundir import RunDir

task._requeue = lambda: print("requeued", flush=True)
start_log()
exec(sys.argv[1])
print(task.execute_runs([RunDir(Path(path)) for path in sys.argv[2:]]), flush=True)
print("gpu in the parent:", sys.modules["torch"].cuda.is_initialized(), flush=True)
