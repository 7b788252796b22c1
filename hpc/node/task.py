"""One task on its node: execute its runs, and requeue the task if a signal stops it.

A signal only sets a flag. The training loop sees it at the next step boundary, saves and returns. Then, outside the
loop, the attempt is closed with its cause, and the task requeues itself or ends. submitit does all of this inside the
signal handler, which may interrupt an optimizer step or the write of a file.

A task with several runs executes each in a fork of its own, see hpc/node/fork.py.
"""

from __future__ import annotations

import logging
import os
import sys
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from submitit.helpers import DelayedSubmission

import jobs
from hpc import slurm
from hpc.node.fork import Forks
from hpc.node.gpu_check import check_slice
from hpc.node.run_lock import wait_for_run_lock
from hpc.recovery.diagnosis import LOCAL_JOB, StopRequest, ends_of, infer_end_cause, own_job_id, restart_count
from hpc.slurm_command import WAITS_S
from src import hints
from src.errors import RelayError, TakenOverError
from src.log import log, start_log
from src.progress import PlainReporter, Reporter, StopCheck
from src.runs.attempts import AttemptHooks, EndCause, Outcome, attempt
from src.runs.causes import REQUEUED_AFTER, STOPPED_BY_USER, check_allowed, why_blocked
from src.runs.rundir import RunDir


class Task:
    """What one SLURM array element executes: the runs at these paths.

    submitit pickles it at submission. A path cannot go stale while the job waits; a configuration could.
    """

    def __init__(self, runs: Sequence[str]) -> None:
        self.runs = list(runs)

    def __call__(self) -> dict[str, str]:
        """Execute the runs, as `execute_runs`. Returns the state of each run by its label."""
        start_log()
        runs = [RunDir(Path(path)) for path in self.runs]
        states = execute_runs(runs)
        if not all(run.is_done() for run in runs):
            # submitit would log "Job completed successfully", also for runs that were stopped or cancelled.
            logging.getLogger("submitit").setLevel(logging.WARNING)
        return states

    def checkpoint(self, *args: Any, **kwargs: Any) -> DelayedSubmission:
        """Called by submitit's own signal handler, which is active only until `StopRequest.install` replaces it."""
        return DelayedSubmission(self)


def execute_runs(runs: Sequence[RunDir]) -> dict[str, str]:
    """Execute the runs that are not done. If one fails, the others are still executed. Returns each state by label.

    Several runs are executed in forks, RELAY_RUNS_PER_SLICE at a time. Raises SystemExit if the task was requeued, or,
    with exit code 1 at the end, if runs failed.
    """
    stop = StopRequest()
    stop.install()
    in_forks = len(runs) > 1
    if in_forks:
        at_once = int(os.environ.get("RELAY_RUNS_PER_SLICE", "1"))
        states = Forks(at_once, lambda run: _execute_one(run, stop, PlainReporter(run.label)), stop).run_all(runs)
    else:
        states = {run.label: _execute_one(run, stop, PlainReporter()) for run in runs}
    stopped = [state for state in states.values() if state in (*REQUEUED_AFTER, *STOPPED_BY_USER)]
    if stop.requested():
        # A fork has asked SLURM, too, but the `stop` in which it noted the answer is its own.
        requeue_if_allowed(runs, stopped[-1] if stopped and not in_forks else stop.cause(), stop)
    elif in_forks and (unasked := [state for state in stopped if state in REQUEUED_AFTER]):
        # A signal reached a single run, by its process id.
        requeue_if_allowed(runs, unasked[-1], stop)
    failed = [label for label, state in states.items() if state == "FAILED"]
    if failed:
        # sys.exit, because submitit prints a traceback of its own for any other exception.
        log.error(f"failed: {', '.join(failed)}; the error is above and in attempts.jsonl")
        sys.exit(1)
    return states


def _execute_one(run: RunDir, stop: StopRequest, reporter: PlainReporter) -> str:
    if run.is_done():
        return "DONE"
    if run.cancelled():
        log.info(f"{run.label}: was cancelled by its user; it is not executed until they submit it again")
        return "CANCELLED"
    hints.use(run.sweep().meta())

    def on_the_right_device(run: RunDir, should_stop: StopCheck, reporter: Reporter) -> Outcome:
        log.info(f"{run.label}: on {check_slice()}")
        return jobs.executor_of(run.sweep().kind)(run, should_stop, reporter)

    try:
        if not wait_for_run_lock(run, stop.requested):
            log.info(f"{run.label}: another SLURM task executes it; this task skips it")
            return "SURPLUS"
        if stop.requested():
            return "WAITED"
        attempt(run, on_the_right_device, stop.requested, reporter, TaskHooks(stop))
    except TakenOverError as error:
        log.info(str(error))
        return "SURPLUS"
    except RelayError as error:
        log.error(f"{run.label}: {error}")
        return "FAILED"
    except Exception:
        traceback.print_exc()
        return "FAILED"
    return str(run.attempts()[-1]["cause"])


class TaskHooks(AttemptHooks):
    """The hooks of an attempt inside a task, on a SLURM node or in the local pool."""

    # A process that only checks the lock holds it for a moment.
    lock_wait_s = 5.0

    def __init__(self, stop: StopRequest) -> None:
        self._stop = stop

    def facts(self) -> Mapping[str, Any]:
        """The job, its cluster, how often SLURM has restarted it, and the slice that the profile requests."""
        own = own_job_id()
        of_slurm = {"cluster": os.environ.get("SLURM_CLUSTER_NAME", "slurm"), "restarts": restart_count()}
        job = {"job": own, **of_slurm} if own else {"job": os.environ.get(LOCAL_JOB)}
        return {**job, "slice": os.environ.get("RELAY_SLICE") or None}

    def check_allowed(self, run: RunDir) -> None:
        """Raises RunError if the budgets of src/runs/causes.py are used up."""
        check_allowed(run.label, run.attempts())

    def cause_of_stop(self, run: RunDir) -> str:
        """CANCELLED if the run directory has a cancel by the user; otherwise what SLURM says."""
        return "CANCELLED" if run.cancelled() else self._stop.cause()

    def infer_end_cause(self, attempt: Mapping[str, Any]) -> EndCause:
        """The end of a lost attempt, from accounting."""
        cause, end = infer_end_cause(attempt, ends_of([attempt], WAITS_S))
        # This job was requeued by SLURM, which it does after a node failure; after a kill -9, the job ends as FAILED.
        # Accounting may not have the end of the earlier execution yet.
        own = own_job_id()
        return ("NODE_FAIL" if cause == "KILLED" and own and attempt.get("job") == own else cause), end


def requeue_if_allowed(runs: Sequence[RunDir], cause: str, stop: StopRequest) -> None:
    """After a stop, requeue the task if the cause allows it and at least one unfinished run may continue.

    Raises SystemExit after a requeue, so that nothing else is executed.
    """
    unfinished = [run for run in runs if not (run.is_done() or run.cancelled() or run.damage())]
    left = [(run, why_blocked(run.attempts())) for run in unfinished]
    if not left:
        return
    for run, blocked in left:
        if blocked:
            log.warning(f"{run.label}: not requeued: {blocked.with_retry(run.label)}")
    if cause == "SIGNALLED":
        # The controller may have been unreachable, and a requeue would undo a cancel: ask again, and wait longer.
        cause = stop.cause(patient=True)
    if stop.put_back:
        log.info(f"{cause}: the state is saved; SLURM has already requeued the task")
    elif cause not in REQUEUED_AFTER:
        log.info(f"{cause}: the state is saved; the task is not requeued")
    elif any(blocked is None for _, blocked in left):
        log.info(f"{cause}: the state is saved; the task is requeued")
        _requeue()
        sys.exit(-1)


def _requeue() -> None:
    # As submitit's handler does, but without pickling the task again: submitit removes the old pickle before the new
    # one is in place, and its pickle counts time-outs, guessed from the clock, down to zero. Our pickle never changes.
    job_id = own_job_id()
    # The local pool decides by the cause in attempts.jsonl.
    if job_id:
        slurm.requeue(job_id)
