"""Typed answers from SLURM about its jobs and its site, and the one table of its job states.

A failed query raises ClusterError. It never returns an empty answer, which would read as "no jobs" and submit twice.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal, NamedTuple

from hpc.slurm_command import (
    ARGUMENT_BYTES,
    PATIENT_WAITS_S,
    WAITS_S,
    BusyError,
    EndedBySignalError,
    retry,
    run_slurm,
    run_slurm_once,
)
from relay.errors import ClusterError


@dataclass(frozen=True)
class QueuedJob:
    """One job or array element, as squeue shows it."""

    job_id: str
    name: str
    state: str
    reason: str
    time_left: str

    @property
    def array_id(self) -> str:
        """The id of the array: `70` for `70_3`."""
        return self.job_id.partition("_")[0]


# Run name -> its tasks that are not over, running ones first.
Queue = Mapping[str, Sequence[QueuedJob]]

# From "job state codes" of slurm.schedmd.com/squeue.html. States that a newer SLURM adds are "unknown", and count as in
# flight: to treat them as over would submit the run twice.
Phase = Literal["waiting", "running", "ending", "over", "unknown"]

_PHASES: dict[str, Phase] = {
    "PENDING": "waiting",
    "REQUEUED": "waiting",
    "REQUEUE_FED": "waiting",
    "REQUEUE_HOLD": "waiting",
    "SPECIAL_EXIT": "waiting",
    "RESV_DEL_HOLD": "waiting",
    "CONFIGURING": "running",
    "RUNNING": "running",
    "RESIZING": "running",
    "SIGNALING": "running",
    "STAGE_OUT": "running",
    "STOPPED": "running",
    "SUSPENDED": "running",
    "COMPLETING": "ending",
    "BOOT_FAIL": "over",
    "CANCELLED": "over",
    "COMPLETED": "over",
    "DEADLINE": "over",
    "FAILED": "over",
    "NODE_FAIL": "over",
    "OUT_OF_MEMORY": "over",
    "PREEMPTED": "over",
    "REVOKED": "over",
    "TIMEOUT": "over",
}


def phase(state: str) -> Phase:
    """The phase of a job state; `CANCELLED by 1000` and `CANCELLED+`, as sacct prints them, are CANCELLED."""
    return _PHASES.get(state.split(" ")[0].rstrip("+"), "unknown")


def in_flight(state: str) -> bool:
    """Whether a task in this state may still execute its run. True for an unknown state."""
    return phase(state) != "over"


def gres_types() -> list[str]:
    """The GPU types of the site's nodes, as their gres names them: `1g.12gb`, `nvidia_h100_nvl_1g.12gb`, "" for none.

    Sites name MIG slices differently. Raises ClusterError.
    """
    return sorted({kind for line in run_slurm(["sinfo", "-h", "-o", "%G"]).splitlines() for kind in gpus_of(line)})


def gpus_of(gres: str) -> dict[str, int]:
    """The GPUs of a node by type, from its gres: `gpu:1g.12gb:7(S:0-1),gpu:4,shard:8`. "" is the type of those without.

    slurm.conf(5), Gres: `name[:type][:no_consume]:number`; sinfo adds sockets in brackets, with commas of their own.
    """
    counts: dict[str, int] = {}
    for item in re.sub(r"\([^)]*\)", "", gres).split(","):
        match = re.fullmatch(r"gpu(?::(?!no_consume:)([^:]+))?(?::no_consume)?:(\d+)", item.strip())
        if match:
            counts[match.group(1) or ""] = counts.get(match.group(1) or "", 0) + int(match.group(2))
    return counts


def check_programs() -> None:
    """Raises ClusterError if a program that a launch needs is missing on this machine.

    The programs are only looked up, not executed: some sites refuse srun on their login nodes.
    """
    missing = [name for name in ("sbatch", "squeue", "srun") if shutil.which(name) is None]
    if missing:
        raise ClusterError(
            f"{', '.join(missing)}: no such command, although this machine has others of SLURM. The installation is "
            "incomplete: load the site's SLURM module, or install the complete slurm-client package"
        )


class SiteSettings(NamedTuple):
    """MaxArraySize of slurm.conf: array indices go from 0 to this minus 1; ClusterName, "" if it is not known; and
    KillWait, the seconds between SIGTERM and SIGKILL.
    """

    array_size: int
    cluster: str
    kill_wait_s: int


def site_settings() -> SiteSettings:
    """What slurm.conf says about this site. Raises ClusterError."""
    text = run_slurm(["scontrol", "show", "config"])
    keys = ("MaxArraySize", "ClusterName", "KillWait")
    size, name, wait = (re.search(rf"^{key}\s*=\s*(\S+)", text, re.M) for key in keys)
    # 1001 and 30 s are SLURM's defaults, slurm.conf(5).
    return SiteSettings(
        int(size.group(1)) if size else 1001, name.group(1) if name else "", int(wait.group(1)) if wait else 30
    )


def squeue(names: Sequence[str], waits_s: Iterable[float] = WAITS_S) -> list[QueuedJob]:
    """The tasks of the jobs with these names, each array element by itself.

    They include tasks that ended a short time ago, with their last state: the controller remembers a job for MinJobAge
    (slurm.conf(5)). Raises ClusterError.
    """
    if not names:
        return []
    given = ",".join(names)
    # -r: without it, squeue folds the queued elements of an array into one line.
    few = len(given) <= ARGUMENT_BYTES
    text = run_slurm(
        ["squeue", "-h", "-r", "-t", "all", *(["-n", given] if few else []), "-o", "%i|%j|%T|%r|%L"], waits_s
    )
    rows = [line.strip().split("|") for line in text.splitlines() if line.strip()]
    jobs = [QueuedJob(*row) for row in rows if len(row) == 5]
    # Too many names for a command line. squeue gets every job from the controller in any case and filters by itself, so
    # filtering here costs the controller nothing.
    wanted = set(names)
    return jobs if few else [job for job in jobs if job.name in wanted]


def cancel(job_ids: Sequence[str]) -> None:
    """Cancel jobs or array elements; those that are already over are skipped. Raises ClusterError."""
    for part in _parts(job_ids):
        run_slurm(["scancel", "--quiet", *part])


def _parts(job_ids: Sequence[str]) -> Iterator[Sequence[str]]:
    """The ids in groups, each short enough for one argument of a command."""
    step = ARGUMENT_BYTES // (1 + max((len(job_id) for job_id in job_ids), default=0))
    for start in range(0, len(job_ids), step):
        yield job_ids[start : start + step]


def release(job_ids: Sequence[str]) -> None:
    """Release jobs that are held in the queue, so that they can start. Raises ClusterError."""
    for part in _parts(job_ids):
        run_slurm(["scontrol", "release", ",".join(part)])


def set_throttle(array_id: str, tasks: int) -> None:
    """Let at most so many tasks of an array run at a time from now on. Raises ClusterError."""
    run_slurm(["scontrol", "update", f"JobId={array_id}", f"ArrayTaskThrottle={tasks}"])


def requeue(job_id: str) -> None:
    """Put a running job or array element back into the queue. No effect if SLURM has already done so.

    If the controller does not answer, this waits as long as the task may live: no one else would requeue the task.
    Raises ClusterError if SLURM refuses.
    """

    def ask() -> None:
        try:
            run_slurm_once(["scontrol", "requeue", job_id])
        except EndedBySignalError as error:
            # A requeue ends the processes of the task, with proctrack/linuxproc also the scontrol that asked for it.
            raise BusyError(str(error)) from None

    try:
        retry(ask, PATIENT_WAITS_S)
    except ClusterError as error:
        # "Job is pending execution": SLURM requeued it first.
        if "pending execution" not in str(error):
            raise


@dataclass(frozen=True)
class JobEnd:
    """One execution of a job or array element, from accounting (sacct). Times are local; None if unknown."""

    job_id: str
    cluster: str
    state: str
    start: datetime | None
    end: datetime | None


def job_history(job_ids: Sequence[str], waits_s: Iterable[float] = (1, 2)) -> list[JobEnd]:
    """All executions of these jobs, oldest first. Raises ClusterError if the site has no accounting, or it is down."""
    # -D (--duplicates): without it, sacct hides the executions before a requeue.
    command = ["sacct", "-D", "-n", "-P", "-X", "-o", "JobID,Cluster,State,Start,End,DerivedExitCode", "-j"]
    answers = [run_slurm([*command, ",".join(part)], waits_s) for part in _parts(job_ids)]
    rows = [line.split("|") for text in answers for line in text.splitlines()]
    found = [JobEnd(row[0], row[1], _state(row[2], row[5:]), _when(row[3]), _when(row[4])) for row in rows if row[4:]]
    return sorted(found, key=lambda end: end.start or datetime.max)


def _state(state: str, derived: Sequence[str]) -> str:
    """The state of the job; OUT_OF_MEMORY if the kernel killed one of its steps, which older SLURMs call FAILED.

    125 is the number that SLURM gives a step that ran out of memory (SIG_OOM, slurm_errno.h), seen with 22.05.
    """
    return "OUT_OF_MEMORY" if state == "FAILED" and derived and derived[0].endswith(":125") else state


@dataclass(frozen=True)
class JobFacts:
    """The current state of a job, from scontrol. Times are local; None if SLURM has none."""

    state: str
    restarts: int
    limit: timedelta | None
    start: datetime | None
    end: datetime | None
    preempted: datetime | None


def show_job(job_id: str, waits_s: Iterable[float] = (0.5, 1, 2)) -> JobFacts:
    """Ask the controller about one job or array element. Raises ClusterError; after MinJobAge it forgets the job."""
    text = run_slurm(["scontrol", "--oneliner", "show", "job", job_id], waits_s)
    fields = dict(re.findall(r"(\w+)=(\S*)", text))
    return JobFacts(
        state=fields.get("JobState", "UNKNOWN"),
        restarts=int(fields.get("Restarts", "0")),
        limit=read_duration(fields.get("TimeLimit", "")),
        start=_when(fields.get("StartTime")),
        end=_when(fields.get("EndTime")),
        preempted=_when(fields.get("PreemptTime")),
    )


def _when(text: str | None) -> datetime | None:
    try:
        return datetime.fromisoformat(text or "")
    except ValueError:
        return None


def read_duration(text: str) -> timedelta | None:
    """`1-02:03:04`, `00:10:00` or `10:00`; None for UNLIMITED, INFINITE, NONE and nothing."""
    match = re.fullmatch(r"(?:(\d+)-)?(?:(\d+):)?(\d+):(\d+)", text.strip())
    if not match:
        return None
    days, hours, minutes, seconds = (int(part or 0) for part in match.groups())
    return timedelta(days=days, hours=hours, minutes=minutes, seconds=seconds)
