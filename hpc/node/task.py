"""Around a task on its node: its runs one after the other, and what follows when it is asked to stop.

A signal only raises a flag. The loop sees it at the next step boundary and saves; then, outside the loop, the attempt
is closed with its cause, and the task is requeued or ends.
"""

from __future__ import annotations

import logging
import os
import sys
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import submitit
from submitit.helpers import DelayedSubmission

import jobs
from hpc import slurm
from hpc.node.gpu_check import check_slice
from hpc.node.run_lock import wait_for_run_lock
from hpc.recovery.diagnosis import StopRequest, ends_of, infer_end_cause, own_job_id, restart_count
from hpc.slurm_command import WAITS_S
from src import hints
from src.errors import RelayError, TakenOverError
from src.log import log, start_log
from src.progress import PlainReporter, Reporter, StopCheck
from src.runs.attempts import AttemptHooks, Loss, Outcome, attempt
from src.runs.causes import REQUEUED_AFTER, STOPPED_BY_USER, check_allowed, why_blocked
from src.runs.rundir import RunDir

VISIBLE_GPUS = "RELAY_VISIBLE_GPUS"


class Task:
    """What one SLURM array element executes; the pickle holds paths and nothing that can go stale."""

    def __init__(self, runs: Sequence[str]) -> None:
        self.runs = list(runs)

    def __call__(self) -> dict[str, str]:
        """Bring the runs to their end, one after the other. Returns each one's state by its label."""
        start_log()
        _see_the_gpus_again()
        runs = [RunDir(Path(path)) for path in self.runs]
        states = execute_runs(runs)
        if not all(run.is_done() for run in runs):
            # Stopped or not begun, which is said above; submitit's own "Job completed successfully" would deny it.
            logging.getLogger("submitit").setLevel(logging.WARNING)
        return states

    def checkpoint(self, *args: Any, **kwargs: Any) -> DelayedSubmission:
        """For submitit's own handler, which is in force only until `StopRequest` has taken over."""
        return DelayedSubmission(self)


def execute_runs(runs: Sequence[RunDir]) -> dict[str, str]:
    """Execute the runs that are not done. A run that fails does not keep the others from theirs.

    Leaves by SystemExit where the task was requeued, and with exit code 1 at the end where runs failed.
    """
    stop = StopRequest()
    stop.install()
    reporter = PlainReporter()
    states: dict[str, str] = {}
    for run in runs:
        if stop.requested():
            break
        states[run.label] = _execute_one(run, stop, reporter)
    if stop.requested():
        stopped = [state for state in states.values() if state in (*REQUEUED_AFTER, *STOPPED_BY_USER)]
        requeue_if_allowed(runs, stopped[-1] if stopped else stop.cause(), stop)
    failed = [label for label, state in states.items() if state == "FAILED"]
    if failed:
        # Not raised: submitit would print its own traceback below the reason.
        log.error(f"failed: {', '.join(failed)}; the reason stands above and in attempts.jsonl")
        sys.exit(1)
    return states


def _execute_one(run: RunDir, stop: StopRequest, reporter: PlainReporter) -> str:
    if run.is_done():
        return "DONE"
    if run.cancelled():
        reporter.say(f"{run.label}: was cancelled, and is not executed until its user asks for it again")
        return "CANCELLED"
    hints.use(run.sweep().meta())

    def on_the_right_device(run: RunDir, should_stop: StopCheck, reporter: Reporter) -> Outcome:
        reporter.say(f"{run.label}: on {check_slice()}")
        return jobs.executor_of(run.sweep().kind)(run, should_stop, reporter)

    try:
        if not wait_for_run_lock(run, stop.requested, reporter):
            reporter.say(f"{run.label}: another task of SLURM's executes it; this one is not needed")
            return "SURPLUS"
        if stop.requested():
            return "WAITED"
        attempt(run, on_the_right_device, stop.requested, reporter, TaskHooks(stop))
    except TakenOverError as error:
        reporter.say(str(error))
        return "SURPLUS"
    except RelayError as error:
        log.error(f"{run.label}: {error}")
        return "FAILED"
    except Exception:
        traceback.print_exc()
        return "FAILED"
    return str(run.attempts()[-1]["cause"])


class TaskHooks(AttemptHooks):
    """An attempt inside a task, on a node of SLURM or in the local pool."""

    # Another process that only checks the lock holds it for a moment.
    lock_wait_s = 5.0

    def __init__(self, stop: StopRequest) -> None:
        self._stop = stop

    def facts(self) -> Mapping[str, Any]:
        """The job, the cluster and how often SLURM has restarted the job, and the slice that was requested."""
        own = own_job_id()
        of_slurm = {"cluster": os.environ.get("SLURM_CLUSTER_NAME", "slurm"), "restarts": restart_count()}
        job = {"job": own, **of_slurm} if own else {"job": os.environ.get("SUBMITIT_LOCAL_JOB_ID")}
        return {**job, "slice": os.environ.get("RELAY_SLICE") or None}

    def check_allowed(self, run: RunDir) -> None:
        """Within the budgets of src/runs/causes.py."""
        check_allowed(run.label, run.attempts())

    def cause_of_stop(self, run: RunDir) -> str:
        """A cancel by the user is in the run directory; SLURM knows the rest."""
        return "CANCELLED" if run.cancelled() else self._stop.cause()

    def infer_end_cause(self, attempt: Mapping[str, Any]) -> Loss:
        """As accounting has it."""
        cause, end = infer_end_cause(attempt, ends_of([attempt], WAITS_S))
        # After a kill -9 a job has failed. SLURM requeued this one, and accounting has no end state for it (yet).
        own = own_job_id()
        return ("NODE_FAIL" if cause == "KILLED" and own and attempt.get("job") == own else cause), end


def _see_the_gpus_again() -> None:
    """submitit's local executor hides all GPUs from its workers; LocalPool hands over what was visible."""
    if os.environ.get("SUBMITIT_EXECUTOR") == "local":
        os.environ.pop("CUDA_VISIBLE_DEVICES", None)
        if VISIBLE_GPUS in os.environ:
            os.environ["CUDA_VISIBLE_DEVICES"] = os.environ[VISIBLE_GPUS]


def requeue_if_allowed(runs: Sequence[RunDir], cause: str, stop: StopRequest) -> None:
    """After a stop: requeue the task, by SystemExit, where its cause allows it and a run is left that may go on."""
    left = [(run, why_blocked(run.attempts())) for run in _left(runs)]
    if not left:
        return
    for run, blocked in left:
        if blocked:
            log.warning(f"{run.label}: not requeued: {blocked.with_retry(run.label)}")
    if cause == "SIGNALLED":
        # It may be that nobody could be asked; a cancel must not be undone.
        cause = stop.cause(patient=True)
    if stop.put_back:
        log.info(f"{cause}: what was reached is saved; SLURM has put the task back itself")
    elif cause not in REQUEUED_AFTER:
        log.info(f"{cause}: what was reached is saved, the task is not requeued")
    elif any(blocked is None for _, blocked in left):
        log.info(f"{cause}: what was reached is saved, the task is requeued")
        _requeue()
        sys.exit(-1)


def _left(runs: Sequence[RunDir]) -> list[RunDir]:
    return [run for run in runs if not (run.is_done() or run.cancelled() or run.damage())]


def _requeue() -> None:
    # What submitit's own handler does, without its re-pickling: that takes the old pickle away before the new one is
    # in its place, and counts time-outs by the clock down to an end. Our pickle never changes.
    job_id = own_job_id()
    if job_id:
        slurm.requeue(job_id)
    else:
        submitit.JobEnvironment()._requeue(0)
