"""Workers on this machine: processes that execute one run at a time, see hpc/node/fork_worker.py."""

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

from src.runs.rundir import RunDir

_JOB_NUMBERS = itertools.count(1)
# Ending takes milliseconds; longer only for a worker that still imports.
_END_TIMEOUT_S = 30.0


class LocalJob:
    """One execution of a run on this machine: its id, unique on this machine, and its log files."""

    def __init__(self, run: RunDir, folder: Path) -> None:
        self.run, self.id = run, f"{os.getpid()}-{next(_JOB_NUMBERS)}"
        self.stdout, self.stderr = (folder / f"{self.id}_0_log.{suffix}" for suffix in ("out", "err"))


class LocalWorker:
    """A process that executes jobs one at a time, with the code in `code` and these environment `variables`.

    A job is sent SIGUSR2 `lead_s` seconds before `limit_s` seconds have passed, as by SLURM. If this process dies, the
    worker completes its job and ends.
    """

    def __init__(
        self, first: LocalJob, code: Path, variables: Mapping[str, str], *, limit_s: float, lead_s: float
    ) -> None:
        """Start the process, and its first job. An error that ends the process itself goes to the log of that job."""
        self._limits = {"limit_s": limit_s, "lead_s": lead_s}
        # Ctrl-C and a closing terminal (SIGHUP) reach the whole process group. Workers ignore both: the pool tells them
        # to stop and gives them time to save.
        before = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGHUP)}
        try:
            with first.stderr.open("a") as errors:
                self._process = subprocess.Popen(
                    [sys.executable, "-m", "hpc.node.fork_worker"],
                    env={**os.environ, **_code_environment(code), **variables},
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=errors,
                )
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
        self.start(first)

    def start(self, job: LocalJob) -> None:
        """Start a job. The worker must be idle."""
        assert self._process.stdin
        files = {"stdout": str(job.stdout), "stderr": str(job.stderr)}
        request = {"run": str(job.run.path), "job": job.id, **files, **self._limits}
        # It may have died a moment ago; `is_usable` then says so.
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(json.dumps(request).encode() + b"\n")
            self._process.stdin.flush()

    def is_alive(self) -> bool:
        """Whether the process is still there. An idle one may have been killed, for its memory or by mistake."""
        return self._process.poll() is None

    def is_busy(self) -> bool:
        """Whether the last job is still running."""
        assert self._process.stdout
        return not select.select([self._process.stdout], [], [], 0)[0]

    def is_usable(self) -> bool:
        """Whether an idle worker can execute another job. To be called once after each job."""
        assert self._process.stdout
        return os.read(self._process.stdout.fileno(), 1) == b"\n"

    def stop(self) -> None:
        """Tell the job to save its state and end. Does not wait for it."""
        self._process.terminate()

    def close(self) -> None:
        """End the process as soon as it is idle."""
        assert self._process.stdin
        assert self._process.stdout
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_END_TIMEOUT_S)
        self._process.stdout.close()


def _code_environment(code: Path) -> dict[str, str]:
    # PYTHONSAFEPATH: otherwise `python -m` puts the current folder, the checkout, before the snapshot.
    before = os.environ.get("PYTHONPATH")
    return {"PYTHONPATH": f"{code}{os.pathsep}{before}" if before else str(code), "PYTHONSAFEPATH": "1"}
