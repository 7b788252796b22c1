"""Find out from SLURM why an attempt ended: at the moment of the signal, or afterwards if it left no end record."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from types import FrameType

from hpc import slurm
from hpc.slurm_command import PATIENT_WAITS_S, BusyError, retry
from relay.errors import ClusterError
from relay.log import log
from relay.runs.attempt import Attempt, Attempts

# States in accounting that explain why a process was killed before it could record its own end.
_LOSSES = {"NODE_FAIL", "OUT_OF_MEMORY", "TIMEOUT", "PREEMPTED", "REQUEUED", "CANCELLED", "BOOT_FAIL", "DEADLINE"}
# Set in a process that executes a run of the local pool: the id of its job.
LOCAL_JOB = "RELAY_LOCAL_JOB"
_ACCOUNTING_WAITS_S = (0.5, 1, 2, 4)
# How far the clocks of a node and of the controller may differ, in seconds.
_CLOCKS_S = 900
# What a run on this machine gets to save.
_SAVE_TIMEOUT_S = 60.0
# Of the time before SLURM kills a job, what comes after its program has ended gets this: closing the attempt, and
# requeueing the task.
PROGRAM_MARGIN_S = 15.0


class StopRequest:
    """Collects the signals that ask a task to stop, and finds out why they came.

    `put_back` becomes true if SLURM has requeued the job itself. To requeue it again would then stop its next
    execution, which may be running already.
    """

    def __init__(self) -> None:
        self.signals: list[int] = []
        # When the job is killed if it has not ended by itself, on the clock of time.monotonic.
        self._killed_at: float | None = None
        self.put_back = False
        self._began = time.monotonic()
        # Between SLURM's SIGTERM and its SIGKILL lies KillWait of slurm.conf(5), known when the task was planned.
        self._limits_s = {signal.SIGUSR2: _lead_s(), signal.SIGTERM: _seconds("RELAY_KILL_WAIT_S", 30)}
        self._job_id = own_job_id()

    def install(self) -> None:
        """Handle SIGUSR2, SIGTERM and Ctrl-C by only noting the signal."""
        for number in (signal.SIGUSR2, signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._note)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.signals.append(number)
        # The warning comes before the time limit. After SIGTERM, SLURM waits for KillWait, whatever came before.
        limit_s = self._limits_s.get(signal.Signals(number), _SAVE_TIMEOUT_S) if self._job_id else _SAVE_TIMEOUT_S
        at = time.monotonic() + limit_s - min(PROGRAM_MARGIN_S, limit_s / 2)
        self._killed_at = at if self._killed_at is None else min(self._killed_at, at)

    def seconds_left(self) -> float:
        """After a stop, how long a program may take to answer before it is killed: SLURM kills the job soon after. The
        first call starts the time of a stop without a signal, such as a cancel.
        """
        if self._killed_at is None:
            self._killed_at = time.monotonic() + _SAVE_TIMEOUT_S - PROGRAM_MARGIN_S
        return self._killed_at - time.monotonic()

    def requested(self) -> bool:
        """Whether the run should stop at the next step."""
        return bool(self.signals)

    def cause(self, *, patient: bool = False) -> str:
        """Why the task was asked to stop, according to SLURM: TIMEOUT, PREEMPTED, REQUEUED, NODE_FAIL, CANCELLED, or
        SIGNALLED if nothing else explains it; without SLURM TIMEOUT, or INTERRUPTED by the user.

        Also SIGNALLED if the controller does not answer. `patient` waits for its answer for as long as the task lives.
        """
        was_warned = signal.SIGUSR2 in self.signals
        if self._job_id is None:
            return "TIMEOUT" if was_warned else "INTERRUPTED"
        try:
            facts = slurm.show_job(self._job_id, PATIENT_WAITS_S if patient else (0.5, 1, 2))
            if facts.restarts > restart_count():
                # SLURM has taken the slice and requeued the task before this process was done.
                self.put_back = True
                return self._cause_of_own_end() or ("PREEMPTED" if facts.preempted else "REQUEUED")
            # Now, by the controller's clock: the node's clock may be wrong.
            ran = timedelta(seconds=time.monotonic() - self._began)
            return cause_from(facts, facts.start + ran if facts.start else datetime.now())
        except ClusterError as error:
            log.warning(f"SLURM did not answer why the task was stopped: {error}")
            return "SIGNALLED"

    def _cause_of_own_end(self) -> str | None:
        """How this execution ended according to accounting, or None. A busy slurmdbd lags behind, so this waits a
        little.
        """
        began = time.time() - (time.monotonic() - self._began)
        own = Attempt(1, began, job=self._job_id, restarts=restart_count())

        def known_cause() -> str:
            end = _execution(own, slurm.job_history([self._job_id or ""]))
            state = _state_of(end) if end and end.end else None
            if state not in ("NODE_FAIL", "REQUEUED", "PREEMPTED"):
                raise BusyError("accounting does not know this end yet")
            return state

        with contextlib.suppress(ClusterError):
            return retry(known_cause, _ACCOUNTING_WAITS_S)
        return None


def cause_from(job: slurm.JobFacts, now: datetime) -> str:
    """The cause of a stop, from the state of the job at the moment of the signal; `now` by the controller's clock."""
    if job.state in ("CANCELLED", "FAILED"):
        return "CANCELLED"
    if job.preempted and (job.start is None or job.preempted >= job.start):
        return "PREEMPTED"
    if job.state == "COMPLETING":
        # scancel and the time limit both look like this while the step ends. Only the latter comes at the limit.
        at_limit = job.start and job.limit and job.start + job.limit - now <= timedelta(seconds=_lead_s())
        return "TIMEOUT" if at_limit else "CANCELLED"
    if job.end and job.end - now <= timedelta(seconds=_lead_s() + 90):
        return "TIMEOUT"
    return "SIGNALLED"


def infer_end_cause(attempt: Attempt, ends: Sequence[slurm.JobEnd]) -> tuple[str, float | None]:
    """Cause and end (seconds since 1970, or None) of an attempt without an end record, from the ends of its job.

    KILLED if accounting has no better explanation: a `kill -9`, a power cut, or no accounting at all.
    """
    own = _execution(attempt, [end for end in ends if end.cluster == attempt.cluster])
    if own is None:
        return "KILLED", None
    return (_state_of(own) if _state_of(own) in _LOSSES else "KILLED"), own.end.timestamp() if own.end else None


def _execution(attempt: Attempt, ends: Sequence[slurm.JobEnd]) -> slurm.JobEnd | None:
    """The execution of its job in which an attempt was made; None if accounting does not have it. `ends` are in order.

    Found by the start of the execution, which SLURM 23.02 and newer give their jobs; else by the number of restarts,
    because clocks cannot tell two executions within minutes apart. SLURM gives an id again when its counter starts
    over: what ended long before the attempt began, or began long after, is another job's.
    """
    own = [end for end in ends if end.job_id == attempt.job]
    started = attempt.job_start
    exact = [end for end in own if started is not None and end.start and abs(end.start.timestamp() - started) < 1]
    if exact:
        return exact[-1]
    begun, margin = datetime.fromtimestamp(attempt.start), timedelta(seconds=_CLOCKS_S)
    # Records of other jobs come before those of this one: its own are never further to the left.
    candidates = (
        end
        for end in own[attempt.restarts or 0 :]
        if (end.end is None or end.end >= begun - margin) and (end.start is None or end.start <= begun + margin)
    )
    return next(candidates, None)


def is_another_job(job: slurm.JobFacts, attempt: Attempt) -> bool:
    """Whether `job` has the id of an attempt's job, but began long after it without a restart."""
    begun = datetime.fromtimestamp(attempt.start)
    began_later = job.start is not None and job.start > begun + timedelta(seconds=_CLOCKS_S)
    return began_later and job.restarts <= (attempt.restarts or 0)


def _state_of(end: slurm.JobEnd) -> str:
    # sacct(1) writes "CANCELLED by 1000", and a "+" after states that it has cut off.
    return end.state.split(" ")[0].rstrip("+")


def ends_of(attempts: Attempts, waits_s: Iterable[float] = (1, 2)) -> list[slurm.JobEnd]:
    """How the SLURM jobs of these attempts ended; one call of sacct, repeated after each of `waits_s` seconds if busy.

    Empty, with a warning, if accounting does not answer.
    """
    # By the id of the array: the ids of ten thousand elements would not fit into a command line.
    jobs = {each.job.partition("_")[0] for each in attempts if each.job and each.on_slurm}
    try:
        return slurm.job_history(sorted(jobs), waits_s)
    except ClusterError as error:
        log.warning(f"accounting did not answer how jobs ended: {error}")
        return []


def restart_count() -> int:
    """How often SLURM has requeued this process's job before this execution."""
    return int(os.environ.get("SLURM_RESTART_COUNT") or 0)


def own_job_id() -> str | None:
    """`123_4` for a task of an array, `123` for a job, None outside of SLURM."""
    if LOCAL_JOB in os.environ:
        return None  # A worker of the local pool may run inside an allocation, which is not its own job.
    array, task = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    return f"{array}_{task}" if array else os.environ.get("SLURM_JOB_ID")


def _lead_s() -> int:
    return _seconds("RELAY_SIGNAL_LEAD_S", 90)


def _seconds(variable: str, default: int) -> int:
    with contextlib.suppress(ValueError):
        return int(os.environ.get(variable, default))
    return default
