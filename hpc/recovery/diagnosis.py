"""Why an attempt ended: asked of SLURM at the moment of a signal, or afterwards where there was no time for a word."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from types import FrameType
from typing import Any

from hpc import slurm
from hpc.slurm_command import PATIENT_WAITS_S, BusyError, retry
from src.errors import ClusterError
from src.log import log

# What accounting calls the end of a job whose process could not say anything itself.
_LOSSES = {"NODE_FAIL", "OUT_OF_MEMORY", "TIMEOUT", "PREEMPTED", "REQUEUED", "CANCELLED", "BOOT_FAIL", "DEADLINE"}
_ACCOUNTING_WAITS_S = (0.5, 1, 2, 4)
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
        self._began = time.monotonic()
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
            facts = slurm.show_job(self._job_id, PATIENT_WAITS_S if patient else (0.5, 1, 2))
            if facts.restarts > restart_count():
                # SLURM has taken the slice and put the task back before we were done.
                self.put_back = True
                return self._cause_of_own_end() or ("PREEMPTED" if facts.preempted else "REQUEUED")
            # By the controller's clock, whatever the node's own says.
            ran = timedelta(seconds=time.monotonic() - self._began)
            return cause_from(facts, facts.start + ran if facts.start else datetime.now())
        except ClusterError as error:
            log.warning(f"the controller could not be asked why: {error}")
            return "SIGNALLED"

    def _cause_of_own_end(self) -> str | None:
        """How accounting says that this execution ended. A busy slurmdbd is behind, and is waited for."""
        own = {"job": self._job_id, "restarts": restart_count()}

        def known_cause() -> str:
            end = _execution(own, slurm.job_history([self._job_id or ""]))
            word = _word(end) if end and end.end else None
            if word not in ("NODE_FAIL", "REQUEUED", "PREEMPTED"):
                raise BusyError("accounting does not know this end yet")
            return word

        with contextlib.suppress(ClusterError):
            return retry(known_cause, _ACCOUNTING_WAITS_S)
        return None


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


def infer_end_cause(attempt: Mapping[str, Any], ends: Sequence[slurm.JobEnd]) -> tuple[str, float | None]:
    """Cause and end (seconds since 1970) of an attempt that left no word, from how its job's executions ended.

    KILLED where SLURM has no better word: a `kill -9`, a power cut, or accounting that is not there.
    """
    own = _execution(attempt, [end for end in ends if end.cluster == attempt.get("cluster")])
    if own is None:
        return "KILLED", None
    return (_word(own) if _word(own) in _LOSSES else "KILLED"), own.end.timestamp() if own.end else None


def _execution(attempt: Mapping[str, Any], ends: Sequence[slurm.JobEnd]) -> slurm.JobEnd | None:
    """The execution of its job in which an attempt was made, `job_history` being in their order.

    By its number, which no clock can make wrong; else by its times, those of the node and of the controller being
    alike within _CLOCKS_S.
    """
    own = [end for end in ends if end.job_id == attempt.get("job")]
    number = attempt.get("restarts")
    if number is not None and number < len(own):
        return own[int(number)]
    if "start" not in attempt:
        return None
    begun, margin = datetime.fromtimestamp(float(attempt["start"])), timedelta(seconds=_CLOCKS_S)
    there = [
        end
        for end in own
        if (end.start and end.start <= begun + margin) and (end.end is None or end.end >= begun - margin)
    ]
    return max(there, key=lambda end: end.start or begun, default=None)


def _word(end: slurm.JobEnd) -> str:
    return end.state.split(" ")[0].rstrip("+")


def ends_of(attempts: Sequence[Mapping[str, Any]], waits_s: Iterable[float] = (1, 2)) -> list[slurm.JobEnd]:
    """How the SLURM jobs of these attempts ended, in one question; nothing if there is no accounting to ask.

    One that is away for a moment is waited for, `waits_s` seconds after each try.
    """
    # Arrays by the array's id: ten thousand elements would not fit into a command line.
    jobs = {str(a["job"]).partition("_")[0] for a in attempts if a.get("job") and a.get("cluster")}
    try:
        return slurm.job_history(sorted(jobs), waits_s)
    except ClusterError as error:
        log.warning(f"accounting could not be asked how jobs ended: {error}")
        return []


def restart_count() -> int:
    """How often SLURM has put this process's job back before this execution of it."""
    return int(os.environ.get("SLURM_RESTART_COUNT") or 0)


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
