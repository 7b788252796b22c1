"""What SLURM says of its jobs and its site, and the one table of its job states. A failed question is never an empty
answer.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import count
from typing import Literal

from hpc.slurm_command import ARGUMENT_BYTES, PATIENT_WAITS_S, WAITS_S, retry, run_slurm, run_slurm_once
from src.errors import ClusterError


@dataclass(frozen=True)
class QueuedJob:
    """What squeue says of one task."""

    job_id: str
    name: str
    state: str
    reason: str
    time_left: str

    @property
    def array_id(self) -> str:
        """The id of the whole array that the task belongs to."""
        return self.job_id.partition("_")[0]


# Run name -> its tasks that are not over.
Queue = Mapping[str, Sequence[QueuedJob]]

# slurm.schedmd.com/squeue.html, job state codes. A state that is not here stays unknown.
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
    """What a state means for a run; `CANCELLED by 1000` and `CANCELLED+` are CANCELLED."""
    return _PHASES.get(state.split(" ")[0].rstrip("+"), "unknown")


def in_flight(state: str) -> bool:
    """Whether a task in this state may still execute its run; so may one in a state that nobody knows."""
    return phase(state) != "over"


def gres_types() -> list[str]:
    """The GPU types of the site's nodes, as gres names them: `1g.12gb`, `nvidia_h100_nvl_1g.12gb`."""
    found = re.findall(r"gpu:([^:,()\s]+):\d+", run_slurm(["sinfo", "-h", "-o", "%G"]))
    return sorted(set(found))


def check_programs() -> None:
    """Raises ClusterError if a program that a launch needs is not on this machine.

    They are looked for and not executed: some sites refuse srun on their login nodes.
    """
    missing = [name for name in ("sbatch", "squeue", "srun") if shutil.which(name) is None]
    if missing:
        raise ClusterError(
            f"{', '.join(missing)}: no such command, although this machine has others of SLURM: its installation is "
            "incomplete. Load the site's SLURM module, or install all of slurm-client"
        )


def max_array_size() -> int:
    """The most tasks that one array of this site may have (MaxArraySize of slurm.conf)."""
    found = re.search(r"^MaxArraySize\s*=\s*(\d+)", run_slurm(["scontrol", "show", "config"]), re.M)
    return int(found.group(1)) if found else 1001


def squeue(names: Sequence[str], waits_s: Iterable[float] = WAITS_S) -> list[QueuedJob]:
    """The tasks of the jobs with these names, each array element by itself: those that wait, run or end, and those
    that ended so short a time ago that the controller still knows them (MinJobAge), with their last state.
    """
    if not names:
        return []
    given = ",".join(names)
    few = len(given) <= ARGUMENT_BYTES
    text = run_slurm(
        ["squeue", "-h", "-r", "-t", "all", *(["-n", given] if few else []), "-o", "%i|%j|%T|%r|%L"], waits_s
    )
    rows = [line.strip().split("|") for line in text.splitlines() if line.strip()]
    jobs = [QueuedJob(*row) for row in rows if len(row) == 5]
    # Too many for a command: squeue has got every job from the controller anyway, and only looks for the names in them.
    wanted = set(names)
    return jobs if few else [job for job in jobs if job.name in wanted]


def cancel(job_ids: Sequence[str]) -> None:
    """Cancel jobs or array elements; those that are over already are skipped."""
    for part in _parts(job_ids):
        run_slurm(["scancel", "--quiet", *part])


def _parts(job_ids: Sequence[str]) -> Iterator[Sequence[str]]:
    """As many ids at a time as fit into one argument of a command."""
    step = ARGUMENT_BYTES // (1 + max((len(job_id) for job_id in job_ids), default=0))
    for start in range(0, len(job_ids), step):
        yield job_ids[start : start + step]


def release(job_ids: Sequence[str]) -> None:
    """Let jobs start that are held in the queue."""
    for part in _parts(job_ids):
        run_slurm(["scontrol", "release", ",".join(part)])


def send_once(name: str, send: Callable[[], str]) -> str:
    """What `send` returns, the id of a job that it submits as `name`.

    Where `send` raises BusyError, the controller is asked whether it has taken the job before the next try; where it
    takes an earlier one late, the surplus one is cancelled. Raises ClusterError.
    """
    tries = count()

    def send_unless_taken() -> str:
        if next(tries) == 0:
            return send()
        taken = squeue([name], waits_s=())
        if taken:
            return taken[0].array_id
        job_id = send()
        cancel(sorted({job.array_id for job in squeue([name])} - {job_id}))
        return job_id

    return retry(send_unless_taken, WAITS_S, announce=True)


def submit_script(name: str, script: str, options: Mapping[str, str | int | bool]) -> str:
    """Submit a bash script as the job `name`, with sbatch's long options. Returns the job id; raises ClusterError."""
    given = [f"--{key}" if value is True else f"--{key}={value}" for key, value in options.items()]
    command = ["sbatch", "--parsable", f"--job-name={name}", *given, f"--wrap={script}"]
    return send_once(name, lambda: run_slurm_once(command).strip().partition(";")[0])


def requeue(job_id: str) -> None:
    """Put a running job or array element back into the queue; nothing to do where SLURM has done so itself.

    A controller that is away is waited for as long as the task may live: nobody else would bring it back.
    """
    try:
        run_slurm(["scontrol", "requeue", job_id], waits_s=PATIENT_WAITS_S)
    except ClusterError as error:
        if "pending execution" not in str(error):
            raise


@dataclass(frozen=True)
class JobEnd:
    """One execution of a job or array element, as accounting has it; times are local, None if they are unknown."""

    job_id: str
    cluster: str
    state: str
    start: datetime | None
    end: datetime | None


def job_history(job_ids: Sequence[str], waits_s: Iterable[float] = (1, 2)) -> list[JobEnd]:
    """Every execution of these jobs, also before a requeue, oldest first. Raises ClusterError without accounting."""
    command = ["sacct", "-D", "-n", "-P", "-X", "-o", "JobID,Cluster,State,Start,End,DerivedExitCode", "-j"]
    answers = [run_slurm([*command, ",".join(part)], waits_s) for part in _parts(job_ids)]
    rows = [line.split("|") for text in answers for line in text.splitlines()]
    found = [JobEnd(row[0], row[1], _state(row[2], row[5:]), _when(row[3]), _when(row[4])) for row in rows if row[4:]]
    return sorted(found, key=lambda end: end.start or datetime.max)


def _state(state: str, derived: Sequence[str]) -> str:
    """The job's state, or that of its step where the kernel ended it: older versions call such a job FAILED.

    125 is the number that SLURM gives a step that was out of memory (SIG_OOM, slurm_errno.h), seen with 22.05.
    """
    return "OUT_OF_MEMORY" if state == "FAILED" and derived and derived[0].endswith(":125") else state


@dataclass(frozen=True)
class JobFacts:
    """What scontrol says of a job at this moment; times are local, None if SLURM has none."""

    state: str
    restarts: int
    limit: timedelta | None
    start: datetime | None
    end: datetime | None
    preempted: datetime | None


def show_job(job_id: str, waits_s: Iterable[float] = (0.5, 1, 2)) -> JobFacts:
    """Ask the controller about one job or array element. Raises ClusterError."""
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
