"""The local profile's pool: at most `max_parallel` runs at a time, watched until every run has ended."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from hpc.submission.local_worker import LocalJob, LocalWorker
from hpc.submission.profile import Profile
from hpc.submission.stop_signals import stop_on_signal
from relay.log import log
from relay.progress import Reporter
from relay.runs.attempt import Attempts, last_attempt
from relay.runs.causes import REQUEUED_AFTER, why_blocked
from relay.runs.code_snapshot import new_code_hint, snapshot_problem
from relay.runs.lifecycle import state_of_run
from relay.runs.rundir import RunDir

_POLL_S = 0.2
# How long workers get to save after Ctrl-C.
_SAVE_TIMEOUT_S = 60.0


class LocalPool:
    """Executes up to `max_parallel` runs at a time. A run that stops with a budget left is started again.

    All of them are forks of one worker, so that torch is imported once.
    """

    def __init__(
        self, profile: Profile, log_folder: Path, reporter: Reporter, code: Path, *, follow: bool = False
    ) -> None:
        """`follow`: also print what the runs log."""
        self._followed: dict[LocalJob, int] | None = {} if follow else None
        self._code, self._log_folder = code, log_folder
        self._profile, self._reporter = profile, reporter
        self._active: dict[RunDir, LocalJob] = {}
        self._worker: LocalWorker | None = None
        self._attempts_seen: dict[RunDir, int] = {}
        self._attempts_before: dict[RunDir, int] = {}
        self._busy: set[RunDir] = set()

    def execute(self, runs: Sequence[RunDir]) -> bool:
        """Execute the runs until all have ended. False if Ctrl-C or a closed terminal stopped them; their states are
        saved.
        """
        waiting = [run for run in runs if not run.is_done()]
        total = len(runs)
        self._log_folder.mkdir(parents=True, exist_ok=True)
        try:
            with stop_on_signal() as should_stop:
                while (waiting or self._active) and not should_stop():
                    again = self._collect()
                    waiting = self._start_some([*waiting, *again])
                    self._show(total, len(waiting))
                    time.sleep(_POLL_S)
                if should_stop():
                    self._stop_all()
            return not should_stop()
        finally:
            if self._worker:
                self._worker.close()

    def _start_some(self, waiting: Sequence[RunDir]) -> list[RunDir]:
        """Start as many runs as places are free. Returns those that still wait, also for another process to finish
        them.
        """
        waits = []
        for run in waiting:
            if len(self._active) >= self._profile.max_parallel:
                waits.append(run)
            elif not run.is_done() and run.cancelled():
                log.info(f"{run.name}: cancelled")
            elif not run.is_done() and not run.is_locked_now():
                self._start(run)
            elif not run.is_done():
                waits.append(run)
                if run not in self._busy:
                    log.info(f"{run.name}: another process executes it; waiting for it")
                    self._busy.add(run)
        return waits

    def _start(self, run: RunDir) -> None:
        problem = snapshot_problem(self._code)
        if problem:
            log.info(f"{run.name}: not started, because {self._code} was changed: {problem}; {new_code_hint()}")
            return
        self._attempts_before[run] = len(run.attempts())
        job = LocalJob(run, self._log_folder)
        if self._worker is None or not self._worker.is_alive():
            if self._worker:
                self._worker.close()
            self._worker = LocalWorker(self._log_folder, self._code, self._cpus())
        self._worker.start(job)
        self._active[run] = job
        log.info(f"started {run.name} (job {job.id})")

    def _cpus(self) -> dict[str, str]:
        """The number of CPUs of each run, unless the user has set OMP_NUM_THREADS."""
        # More threads than cores: each run waits at its barriers for threads that are not scheduled.
        if self._profile.cpus is None and "OMP_NUM_THREADS" in os.environ:
            return {}
        share = max(1, len(os.sched_getaffinity(0)) // self._profile.max_parallel)
        return {"RELAY_CPUS": str(self._profile.cpus or share)}

    def _collect(self) -> list[RunDir]:
        """Handle jobs that have ended: report their runs as done or failed, and return those to start again."""
        again: list[RunDir] = []
        if self._worker is None:
            return again
        for run, job in list(self._active.items()):
            self._follow(job)
            self._report_attempts(run)
            # A worker that replaced another one does not know its jobs: they count as ended.
            if self._worker.is_busy(job):
                continue
            del self._active[run]
            attempts = run.attempts()
            state = state_of_run(run, run.result(), attempts)
            # A worker that ended before it began an attempt (an import error) would end so again.
            began = len(attempts) > self._attempts_before[run]
            if not run.is_done() and began and _may_continue(run, attempts):
                again.append(run)
                continue
            detail = "" if run.result() else f"; see {job.stderr if began else self._worker.log}"
            log.info(f"{run.name}: {state}{detail}")
        return again

    def _follow(self, job: LocalJob) -> None:
        if self._followed is None or not job.stderr.is_file():
            return
        with job.stderr.open("rb") as file:
            file.seek(self._followed.get(job, 0))
            *lines, rest = file.read().split(b"\n")
            self._followed[job] = file.tell() - len(rest)
        for line in lines:
            print(line.decode(errors="replace"), file=sys.stderr, flush=True)

    def _report_attempts(self, run: RunDir) -> None:
        ended = [attempt for attempt in run.attempts() if attempt.ended]
        for attempt in ended[self._attempts_seen.get(run, 0) :]:
            if attempt.interrupted:
                where = "" if attempt.last_step is None else f" at step {attempt.last_step}"
                where += "" if attempt.total_steps is None else f" of {attempt.total_steps}"
                log.info(f"{run.name}: attempt {attempt.number} ended by {attempt.cause}{where}")
            elif attempt.first_step:
                log.info(f"{run.name}: attempt {attempt.number} resumed from step {attempt.first_step} and finished")
        self._attempts_seen[run] = len(ended)

    def _show(self, total: int, waiting: int) -> None:
        if self._active:
            done = total - waiting - len(self._active)
            self._reporter.advance(done, total, "; ".join(_progress_of(run) for run in self._active), unit="run")

    def _stop_all(self) -> None:
        """Tell every run to save and stop, and wait until they have."""
        worker = self._worker
        if worker is None:
            return
        worker.stop()
        _wait_until(lambda: not any(map(worker.is_busy, self._active.values())), _SAVE_TIMEOUT_S)
        for run, job in self._active.items():
            self._follow(job)
            last = last_attempt(run.attempts())
            is_saved = last is not None and last.last_step is not None
            log.info(f"{run.name}: {f'saved at step {last.last_step}' if last and is_saved else 'stopped'}")


def _may_continue(run: RunDir, attempts: Attempts) -> bool:
    if run.cancelled():
        return False
    # Without an end record, the worker was killed (kill -9, out of memory); its next attempt closes this one.
    last = attempts[-1]
    again = not last.ended or last.cause in (*REQUEUED_AFTER, "KILLED")
    return again and why_blocked(attempts) is None


def _progress_of(run: RunDir) -> str:
    """One run's progress in a few words, from its newest metrics row."""
    row = run.last_metrics()
    if not row:
        return f"{run.name}: starting"
    loss = row.get("train/loss")
    return f"{run.name}: step {row['step']}" + (f"  loss {loss:.3f}" if loss is not None else "")


def _wait_until(condition: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(_POLL_S)
