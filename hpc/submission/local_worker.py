"""The worker on this machine: a process that executes runs in forks of itself, see hpc/node/fork_worker.py."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from relay.runs.code_snapshot import python_path
from relay.runs.rundir import RunDir

_NUMBERS = itertools.count(1)
# Ending takes milliseconds; longer only for a worker that still imports.
_END_TIMEOUT_S = 30.0


class LocalJob:
    """One execution of a run on this machine: its id, unique on this machine, and its log files."""

    def __init__(self, run: RunDir, folder: Path) -> None:
        self.run, self.id = run, f"{os.getpid()}-{next(_NUMBERS)}"
        self.stdout, self.stderr = (folder / f"{self.id}_0_log.{suffix}" for suffix in ("out", "err"))


class LocalWorker:
    """A process that executes jobs, with the code in `code` and these environment `variables`.

    If this process dies, the worker completes its jobs and ends. What ends the worker itself, an import error, is in
    `log`, a file in `folder`.
    """

    def __init__(self, folder: Path, code: Path, variables: Mapping[str, str]) -> None:
        self.log = folder / f"{os.getpid()}-worker-{next(_NUMBERS)}.err"
        self._busy: set[str] = set()
        self._read = b""
        # Ctrl-C and a closing terminal (SIGHUP) reach the whole process group. Workers ignore both: the pool tells them
        # to stop and gives them time to save.
        before = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGHUP)}
        try:
            with self.log.open("a") as errors:
                self._process = subprocess.Popen(
                    [sys.executable, "-m", "hpc.node.fork_worker"],
                    env={**os.environ, **python_path(code), **variables},
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=errors,
                )
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def start(self, job: LocalJob) -> None:
        """Start a job, beside those that are running."""
        assert self._process.stdin
        files = {"stdout": str(job.stdout), "stderr": str(job.stderr)}
        request = {"run": str(job.run.path), "job": job.id, **files}
        self._busy.add(job.id)
        # It may have died a moment ago; `is_busy` then says so.
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(json.dumps(request).encode() + b"\n")
            self._process.stdin.flush()

    def is_alive(self) -> bool:
        """Whether the process is still there. It may have been killed, for its memory or by mistake."""
        return self._process.poll() is None

    def is_busy(self, job: LocalJob) -> bool:
        """Whether the job is still running. No job is if the process died: its runs end with it."""
        assert self._process.stdout
        while self._busy and select.select([self._process.stdout], [], [], 0)[0]:
            read = os.read(self._process.stdout.fileno(), 65536)
            *ended, self._read = (self._read + read).split(b"\n")
            self._busy -= {name.decode() for name in ended} if read else self._busy.copy()
        return job.id in self._busy

    def stop(self) -> None:
        """Tell all jobs to save their states and end. Does not wait for them."""
        self._process.terminate()

    def close(self) -> None:
        """End the process as soon as its jobs have ended. None of them counts as running any more."""
        assert self._process.stdin
        assert self._process.stdout
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        if not self._busy:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(_END_TIMEOUT_S)
        self._process.stdout.close()
        self._busy.clear()
        if self.log.is_file() and not self.log.stat().st_size:
            self.log.unlink()
