"""Why an attempt ended: asked of SLURM at the moment of a signal, or afterwards where there was no time for a word."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from types import FrameType
from typing import Any

from hpc import slurm
from src.errors import ClusterError

# What accounting calls the end of a job whose process could not say anything itself.
_LOSSES = {"NODE_FAIL", "OUT_OF_MEMORY", "TIMEOUT", "PREEMPTED", "REQUEUED", "CANCELLED", "BOOT_FAIL", "DEADLINE"}
# Clocks of nodes and controller may differ by so much.
_CLOCKS_S = 30


class StopRequest:
    """Collects the signals that ask a task to stop, and says why they came.

    `put_back` turns true when SLURM says that it has requeued the job: to requeue it again would stop its next
    execution, which may be running already.
    """

    def __init__(self) -> None:
        self.signals: list[int] = []
        self.put_back = False
        self._job_id = own_job_id()

    def install(self) -> None:
        """Put the flag in the place of submitit's handlers: SIGUSR2, SIGTERM, and Ctrl-C of a local run."""
        for number in (_preempt_signal(), signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._note)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.signals.append(number)

    def requested(self) -> bool:
        """Whether the run is to stop at the next step."""
        return bool(self.signals)

    def cause(self, *, patient: bool = False) -> str:
        """Why the stop was asked for, by SLURM's own word: TIMEOUT, PREEMPTED, CANCELLED, or SIGNALLED by somebody.

        SIGNALLED too where the controller does not answer; `patient` waits for it as long as the task is let live.
        """
        told = _preempt_signal() in self.signals
        if self._job_id is None:
            return "TIMEOUT" if told else "CANCELLED"
        try:
            facts = slurm.show_job(self._job_id, slurm.PATIENT_WAITS_S if patient else (0.5, 1, 2))
            if facts.restarts > int(os.environ.get("SLURM_RESTART_COUNT") or 0):
                # SLURM has taken the slice and put the task back before we were done.
                self.put_back = True
                return {"NODE_FAIL": "NODE_FAIL", "REQUEUED": "REQUEUED"}.get(self._last_end() or "", "PREEMPTED")
            return cause_from(facts, datetime.now())
        except ClusterError as error:
            print(f"the controller could not be asked why: {error}", file=sys.stderr, flush=True)
            return "SIGNALLED"

    def _last_end(self) -> str | None:
        try:
            over = [end for end in slurm.ends([self._job_id or ""]) if end.end is not None]
        except ClusterError:
            return None
        return over[-1].state if over else None


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


def cause_of_loss(attempt: Mapping[str, Any], ends: Sequence[slurm.JobEnd]) -> tuple[str, float | None]:
    """Cause and end (seconds since 1970) of an attempt that left no word, from how its job's executions ended.

    KILLED where SLURM has no better word: a `kill -9`, a power cut, or accounting that is not there.
    """
    begun, margin = datetime.fromtimestamp(float(attempt["start"])), timedelta(seconds=_CLOCKS_S)
    own = [
        end
        for end in ends
        if (end.job_id, end.cluster) == (attempt.get("job"), attempt.get("cluster"))
        and (end.start and end.start <= begun + margin)
        and (end.end is None or end.end >= begun - margin)
    ]
    if not own:
        return "KILLED", None
    last = max(own, key=lambda end: end.start or begun)
    word = last.state.split(" ")[0].rstrip("+")
    return (word if word in _LOSSES else "KILLED"), last.end.timestamp() if last.end else None


def ends_of(attempts: Sequence[Mapping[str, Any]], waits_s: Iterable[float] = (1, 2)) -> list[slurm.JobEnd]:
    """How the SLURM jobs of these attempts ended, in one question; nothing where there is no accounting to ask.

    One that is away for a moment is waited for, `waits_s` seconds after each try.
    """
    # Arrays by the array's id: ten thousand elements would not fit into a command line.
    jobs = {str(a["job"]).partition("_")[0] for a in attempts if a.get("job") and a.get("cluster")}
    try:
        return slurm.ends(sorted(jobs), waits_s)
    except ClusterError as error:
        print(f"accounting could not be asked how jobs ended: {error}", file=sys.stderr, flush=True)
        return []


def own_job_id() -> str | None:
    """`123_4` of an array's task, `123` of a job, None outside of SLURM."""
    if os.environ.get("SUBMITIT_EXECUTOR") == "local":
        return None  # A worker of this machine, inside somebody's allocation, which is not its own.
    array, task = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    return f"{array}_{task}" if array else os.environ.get("SLURM_JOB_ID")


def _preempt_signal() -> int:
    return int(signal.Signals[f"SIG{os.environ.get('SUBMITIT_PREEMPT_SIGNAL', 'USR2')}"])


def _lead_s() -> int:
    with contextlib.suppress(ValueError):
        return int(os.environ.get("RELAY_SIGNAL_LEAD_S", "90"))
    return 90
