"""Around a task on its node: stop requests, the cause of a stop, and what follows from it.

A signal only raises a flag. The loop sees it at the next step boundary and saves; then, outside the loop, the attempt
is closed with its cause, and the task is requeued or ends.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
import traceback
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from types import FrameType
from typing import Any

import submitit
from submitit.helpers import DelayedSubmission

import jobs
from hpc import slurm
from src.attempts import attempt
from src.errors import ClusterError, RelayError
from src.outcome import Outcome
from src.progress import PlainReporter, Reporter, StopCheck
from src.rundir import RunDir

# How often each cause may end an attempt and the run still goes on; None is without limit.
BUDGETS: Mapping[str, int | None] = {
    "TIMEOUT": 50,
    "PREEMPTED": None,
    "NODE_FAIL": 5,
    "REQUEUED": None,
    "SIGNALLED": None,
}
# Attempts in a row that may end without a step done.
MAX_IDLE_ATTEMPTS = 2
# An attempt before this one, on another node, may still be ending: SLURM gives it KillWait, 30 s by default.
_CLAIM_WAIT_S = 90.0


class Task:
    """What one SLURM array element executes; the pickle holds paths and nothing that can go stale."""

    def __init__(self, runs: Sequence[str]) -> None:
        self.runs = list(runs)

    def __call__(self) -> dict[str, str]:
        """Bring the runs to their end, one after the other. Returns each one's state by its path."""
        return execute_runs([RunDir(Path(path)) for path in self.runs])

    def checkpoint(self, *args: Any, **kwargs: Any) -> DelayedSubmission:
        """For submitit's own handler, which is in force only until `StopRequest` has taken over."""
        return DelayedSubmission(self)


class StopRequest:
    """Collects the signals that ask a task to stop, and says why they came."""

    def __init__(self) -> None:
        self.signals: list[int] = []
        self._job_id = _slurm_job_id()

    def install(self) -> None:
        """Put the flag in the place of submitit's handlers: SIGUSR2, SIGTERM, and Ctrl-C of a local run."""
        for number in (_preempt_signal(), signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._note)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.signals.append(number)

    def requested(self) -> bool:
        """Whether the run is to stop at the next step."""
        return bool(self.signals)

    def cause(self) -> str:
        """Why the stop was asked for, by SLURM's own word: TIMEOUT, PREEMPTED, CANCELLED, or SIGNALLED by somebody."""
        told = _preempt_signal() in self.signals
        if self._job_id is None:
            return "TIMEOUT" if told else "CANCELLED"
        try:
            facts = slurm.show_job(self._job_id)
            if facts.restarts > int(os.environ.get("SLURM_RESTART_COUNT") or 0):
                # SLURM has taken the slice and put the task back before we were done.
                return {"NODE_FAIL": "NODE_FAIL", "REQUEUED": "REQUEUED"}.get(
                    slurm.last_end(self._job_id) or "", "PREEMPTED"
                )
            return cause_from(facts, datetime.now())
        except ClusterError as error:
            print(f"the controller could not be asked why: {error}", file=sys.stderr, flush=True)
            return "SIGNALLED"


def cause_from(job: slurm.JobFacts, now: datetime) -> str:
    """The cause of a stop, from what SLURM says of the job at the moment of the signal."""
    if job.state in ("CANCELLED", "FAILED"):
        return "CANCELLED"
    if job.preempted and (job.start is None or job.preempted >= job.start):
        return "PREEMPTED"
    if job.state == "COMPLETING":
        # Both scancel and the time limit look like this while the step ends; only one of them comes at the limit.
        at_limit = job.start and job.limit and job.start + job.limit - now <= timedelta(seconds=_lead_s())
        return "TIMEOUT" if at_limit else "CANCELLED"
    if job.end and job.end - now <= timedelta(seconds=_lead_s() + 90):
        return "TIMEOUT"
    return "SIGNALLED"


def execute_runs(runs: Sequence[RunDir]) -> dict[str, str]:
    """Execute the runs that are not done. A run that crashes does not keep the others from theirs.

    Leaves by SystemExit where the task was requeued, and with exit code 1 at the end where runs failed.
    """
    stop = StopRequest()
    stop.install()
    reporter = PlainReporter()
    states: dict[str, str] = {}
    for run in runs:
        if run.result() is None:
            states[str(run.path)] = _execute_one(run, stop, reporter)
            if stop.requested():
                give_back(run, states[str(run.path)])
                return states
        else:
            states[str(run.path)] = "DONE"
    failed = [path for path, state in states.items() if state == "CRASHED"]
    if failed:
        # Not raised: submitit would print its own traceback below the reason.
        print(
            f"crashed: {', '.join(failed)}; the reason stands above and in attempts.jsonl", file=sys.stderr, flush=True
        )
        sys.exit(1)
    return states


def check_slice() -> None:
    """Where the profile asks for a GPU, exactly one must be visible: a CPU run in its place would only be slow.

    Raises ClusterError.
    """
    if os.environ.get("RELAY_NEEDS_GPU", "0") != "1":
        return
    import torch

    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if count != 1:
        visible = os.environ.get("CUDA_VISIBLE_DEVICES", "not set")
        raise ClusterError(
            f"needs_gpu: {count} GPUs are visible on {socket.gethostname()} (CUDA_VISIBLE_DEVICES {visible}), it must "
            "be one: check gres or slice of the profile, and that torch fits the driver (make setup TORCH_BACKEND=auto)"
        )


def _execute_one(run: RunDir, stop: StopRequest, reporter: PlainReporter) -> str:
    execute = jobs.executor_of(run.sweep().kind)

    def on_the_right_device(run: RunDir, should_stop: StopCheck, reporter: Reporter) -> Outcome:
        check_slice()
        return execute(run, should_stop, reporter)

    try:
        attempt(
            run,
            on_the_right_device,
            stop.requested,
            reporter,
            job=_job_name(),
            claim_wait_s=_CLAIM_WAIT_S,
            cause_of_stop=stop.cause,
        )
    except RelayError as error:
        reporter.say(f"error: {run.label}: {error}")
        return "CRASHED"
    except Exception:
        traceback.print_exc()
        return "CRASHED"
    return str(run.attempts()[-1]["cause"])


def give_back(run: RunDir, cause: str) -> None:
    """After a stop: requeue the task, by SystemExit, where cause and budget allow it; else just return."""
    reason = refusal(run.attempts(), cause)
    if reason:
        print(f"{run.label}: not requeued: {reason}", file=sys.stderr, flush=True)
        return
    print(f"{run.label}: {cause}; the state is saved, the task is requeued", file=sys.stderr, flush=True)
    # What submitit's own handler does, without its re-pickling: that takes the old pickle away before the new one is
    # in its place, and counts time-outs by the clock down to an end. Our pickle never changes.
    job_id = _slurm_job_id()
    if job_id:
        slurm.requeue(job_id)
    else:
        submitit.JobEnvironment()._requeue(0)
    sys.exit(-1)


def refusal(attempts: Sequence[Mapping[str, Any]], cause: str) -> str:
    """Why a run whose last attempt ended in `cause` may not go on by itself, or ""."""
    if cause not in BUDGETS:
        return cause
    limit = BUDGETS[cause]
    used = sum(a.get("cause") == cause for a in attempts)
    if limit is not None and used > limit:
        return f"{cause} for the {used}th time, {limit} are allowed; raise the time limit of the profile"
    idle = [
        a.get("first_step") is not None and a["last_step"] <= a["first_step"] for a in attempts[-MAX_IDLE_ATTEMPTS:]
    ]
    if len(idle) == MAX_IDLE_ATTEMPTS and all(idle):
        what = f"NO_PROGRESS: no step done in {MAX_IDLE_ATTEMPTS} attempts"
        return f"{what}; raise time_min or lower signal_lead_s of the profile"
    return ""


def _preempt_signal() -> int:
    return int(signal.Signals[f"SIG{os.environ.get('SUBMITIT_PREEMPT_SIGNAL', 'USR2')}"])


def _lead_s() -> int:
    with contextlib.suppress(ValueError):
        return int(os.environ.get("RELAY_SIGNAL_LEAD_S", "90"))
    return 90


def _slurm_job_id() -> str | None:
    array, task = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    return f"{array}_{task}" if array else os.environ.get("SLURM_JOB_ID")


def _job_name() -> str | None:
    return _slurm_job_id() or os.environ.get("SUBMITIT_LOCAL_JOB_ID")
