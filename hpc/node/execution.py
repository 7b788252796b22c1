"""One run in a task: take its lock, check the slice, execute it, and record why the attempt ended."""

from __future__ import annotations

import functools
import os
import traceback
from collections.abc import Callable, Mapping
from typing import Any

from hpc.node.gpu_check import check_slice
from hpc.node.run_lock import wait_for_run_lock
from hpc.node.supervisor import supervise
from hpc.recovery.diagnosis import LOCAL_JOB, StopRequest, ends_of, infer_end_cause, own_job_id, restart_count
from hpc.slurm_command import WAITS_S
from hpc.works import work_of
from relay import hints
from relay.errors import RelayError, TakenOverError
from relay.log import log
from relay.progress import Reporter, StopCheck
from relay.runs.attempt import Attempt
from relay.runs.causes import check_allowed
from relay.runs.lifecycle import AttemptHooks, EndCause, Execute, Outcome, attempt
from relay.runs.rundir import RunDir
from relay.work import Work


def execute_run(run: RunDir, stop: StopRequest, reporter: Reporter, at_once: int = 1) -> str:
    """Execute the run unless it is done, cancelled, or executed by another task. Returns its state.

    That is the cause that ended its attempt; or FAILED, with the error in the log; SURPLUS, if another task has the
    run; WAITED, if a stop was requested before it began. `at_once` is the number of runs that share the slice.
    """
    if run.is_done():
        return "DONE"
    # A user's code has its project as the current folder.
    run = RunDir(run.path.absolute())
    with hints.acting_for(run.sweep().meta()):
        return _execute(run, stop, reporter, at_once)


def executor_of(work: Work, seconds_left: Callable[[], float]) -> Execute:
    """What executes runs of a work: its own function, or the supervisor of a program (`seconds_left`: see there)."""
    return work.execute or functools.partial(supervise, seconds_left=seconds_left)


def _execute(run: RunDir, stop: StopRequest, reporter: Reporter, at_once: int) -> str:

    def on_the_right_device(run: RunDir, should_stop: StopCheck, reporter: Reporter) -> Outcome:
        log.info(f"{run.label}: on {check_slice()}")
        execute = executor_of(work_of(run.sweep().kind, run.sweep().path), stop.seconds_left)
        return execute(run, should_stop, reporter)

    try:
        if not wait_for_run_lock(run, lambda: stop.requested() or run.cancelled()):
            log.info(f"{run.label}: another SLURM task executes it; this task skips it")
            return "SURPLUS"
        if stop.requested():
            return "WAITED"
        if run.cancelled():
            log.info(f"{run.label}: was cancelled by its user; it is not executed until they submit it again")
            return "CANCELLED"
        attempt(run, on_the_right_device, stop.requested, reporter, TaskHooks(stop, at_once))
    except TakenOverError as error:
        log.info(str(error))
        return "SURPLUS"
    except RelayError as error:
        log.error(f"{run.label}: {error}")
        return "FAILED"
    except Exception:
        traceback.print_exc()
        return "FAILED"
    return str(run.attempts()[-1].cause)


class TaskHooks(AttemptHooks):
    """The hooks of an attempt inside a task, on a SLURM node or in the local pool."""

    # A process that only checks the lock holds it for a moment.
    lock_wait_s = 5.0

    def __init__(self, stop: StopRequest, at_once: int) -> None:
        self._stop, self._at_once = stop, at_once

    def facts(self) -> Mapping[str, Any]:
        """The job, its cluster and start, how often SLURM has restarted it, and the slice that the profile requests.

        Also `at_once`, how many runs share the slice, if several do.
        """
        own = own_job_id()
        cluster = os.environ.get("SLURM_CLUSTER_NAME", "slurm")
        of_slurm: dict[str, Any] = {"cluster": cluster, "restarts": restart_count()}
        # Set by SLURM 23.02 and newer: seconds since 1970, of this execution of the job.
        if begun := os.environ.get("SLURM_JOB_START_TIME", "").strip():
            of_slurm["job_start"] = float(begun)
        job = {"job": own, **of_slurm} if own else {"job": os.environ.get(LOCAL_JOB)}
        shared = {"at_once": self._at_once} if self._at_once > 1 else {}
        return {**job, "slice": os.environ.get("RELAY_SLICE") or None, **shared}

    def check_allowed(self, run: RunDir) -> None:
        """Raises RunError if the budgets of relay/runs/causes.py are used up."""
        check_allowed(run.label, run.attempts())

    def cause_of_stop(self) -> str:
        """What SLURM says."""
        return self._stop.cause()

    def infer_end_cause(self, attempt: Attempt) -> EndCause:
        """The end of a lost attempt, from accounting."""
        cause, end = infer_end_cause(attempt, ends_of([attempt], WAITS_S))
        # This job was requeued by SLURM, which it does after a node failure; after a kill -9, the job ends as FAILED.
        # Accounting may not have the end of the earlier execution yet.
        own = own_job_id()
        return ("NODE_FAIL" if cause == "KILLED" and own and attempt.job == own else cause), end
