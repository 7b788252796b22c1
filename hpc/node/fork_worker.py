"""The worker of the local pool: it imports once what runs need, then executes each run in a fork of itself.

`python -m hpc.node.fork_worker` reads a request per line on stdin, starts its run at once beside the others, and prints
the job's id when it has ended. SIGTERM and SIGUSR2 are forwarded to all runs. When stdin is closed, it ends after them.

Not `fork.Forks`, which executes the fixed list of one task: the pool gives each run a log of its own, starts runs again
within their budgets, waits for those that other processes execute, and replaces a worker that was killed.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hpc.node.fork import POLL_S, fork, import_once
from hpc.node.task import execute_runs
from hpc.recovery.diagnosis import LOCAL_JOB
from hpc.works import work_of
from relay.log import start_log
from relay.runs.rundir import RunDir

_FORWARDED = (signal.SIGTERM, signal.SIGUSR2)


def serve() -> None:
    """Execute requests until stdin is closed: `run`, `job`, `stdout`, `stderr`."""
    imported = set[str]()
    noted: list[int] = []
    for number in _FORWARDED:
        signal.signal(number, lambda number, _: noted.append(number))
    # Process id -> the id of its job.
    jobs: dict[int, str] = {}
    text, is_open = b"", True
    while is_open or jobs:
        # Taken before the requests are read: a signal is also for what was requested before it.
        signals = [noted.pop(0) for _ in range(len(noted))]
        if is_open and select.select([sys.stdin], [], [], 0 if signals else POLL_S)[0]:
            read = os.read(sys.stdin.fileno(), 65536)
            is_open = bool(read)
            *lines, text = (text + read).split(b"\n")
            for request in map(json.loads, lines):
                kind = RunDir(Path(request["run"])).sweep().kind
                if kind not in imported:
                    import_once(work_of(kind))
                    imported.add(kind)
                jobs[_start(request)] = request["job"]
        elif not is_open:
            time.sleep(POLL_S)
        for pid in jobs:
            for each in signals:
                os.kill(pid, each)
        for pid, job in list(jobs.items()):
            if os.waitpid(pid, os.WNOHANG) != (0, 0):
                del jobs[pid]
                # Whoever started this process may be gone; the runs are completed all the same.
                with contextlib.suppress(BrokenPipeError):
                    os.write(sys.stdout.fileno(), f"{job}\n".encode())
    # Tearing down torch takes longer than a run of the tests.
    os._exit(0)


def _start(request: Mapping[str, Any]) -> int:
    # In the fork, a signal before it has its own handlers would only be noted, in a list that nobody reads there.
    signal.pthread_sigmask(signal.SIG_BLOCK, _FORWARDED)
    pid = fork(lambda: _run(request))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _FORWARDED)
    return pid


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
