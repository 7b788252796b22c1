"""A worker of the local pool: it imports once what runs need, then executes each run in a fork of itself.

`python -m hpc.node.fork_worker` reads one request per line on stdin, and answers each with an empty line when its run
has ended. It ends when stdin is closed.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hpc.node.fork import POLL_S, fork, import_once
from hpc.node.task import execute_runs
from hpc.recovery.diagnosis import LOCAL_JOB
from src.log import start_log
from src.runs.rundir import RunDir

_FORWARDED = (signal.SIGTERM, signal.SIGUSR2)


def serve() -> None:
    """Execute requests until stdin is closed: `run`, `job`, `stdout`, `stderr`, `limit_s`, `lead_s`."""
    import_once()
    for line in sys.stdin:
        _execute(json.loads(line))
        print(flush=True)
    # Tearing down torch takes longer than a run of the tests.
    os._exit(0)


def _execute(request: Mapping[str, Any]) -> None:
    # A signal between the fork and the installation of its handler would end the worker in place of the run.
    signal.pthread_sigmask(signal.SIG_BLOCK, _FORWARDED)
    pid = fork(lambda: _run(request))
    for number in _FORWARDED:
        signal.signal(number, lambda number, _: os.kill(pid, number))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _FORWARDED)
    _wait(pid, request["limit_s"], request["lead_s"])
    for number in _FORWARDED:
        signal.signal(number, signal.SIG_DFL)


def _wait(pid: int, limit_s: float, lead_s: float) -> None:
    """Wait for the run as SLURM does: SIGUSR2 `lead_s` seconds before its time limit, SIGKILL at the limit."""
    began, warned = time.monotonic(), False
    while os.waitpid(pid, os.WNOHANG) == (0, 0):
        ran = time.monotonic() - began
        if ran >= limit_s - lead_s and not warned:
            os.kill(pid, signal.SIGUSR2)
            warned = True
        if ran >= limit_s:
            os.kill(pid, signal.SIGKILL)
        time.sleep(POLL_S)


def _run(request: Mapping[str, Any]) -> None:
    """In the fork: execute the run with its own job id and log files."""
    for number in _FORWARDED:
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _FORWARDED)
    for target, name in enumerate((os.devnull, request["stdout"], request["stderr"])):
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND if target else os.O_RDONLY
        os.dup2(os.open(name, flags, 0o666), target)
    # Like `python -u`: a line appears in the log when it is printed.
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    os.environ[LOCAL_JOB] = request["job"]
    start_log()
    execute_runs([RunDir(Path(request["run"]))])


if __name__ == "__main__":
    serve()
