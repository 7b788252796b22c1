"""The only code that calls SLURM's commands, and reads their answers. A failed question is never an empty answer."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from src import hints
from src.errors import ClusterError

# A busy controller may take a minute for the answer to squeue.
_TIMEOUT_S = 180
_BUSY = re.compile(
    r"Socket timed out|Unable to contact|Connection (refused|timed out)|Communication connection failure|try again"
    r"|Unexpected message received",
    re.I,
)
# What users set for themselves changes what the commands answer: SQUEUE_PARTITION hides jobs, SLURM_TIME_FORMAT turns
# times into words, SLURM_CLUSTERS asks another cluster. Only what says where the cluster is may stay.
_SETTINGS = re.compile(r"(SLURM|SBATCH|SQUEUE|SACCT|SINFO|SCONTROL|SCANCEL)_")
# Linux takes at most 128 KiB in one argument of a command (MAX_ARG_STRLEN, execve(2)), and 2 MiB in all of them.
_ARGUMENT_BYTES = 100_000
LOCATIONS = ("SLURM_CONF", "SLURM_CONF_SERVER", "SLURM_JWT")
WAITS_S = (1, 2, 4, 8, 15)
# On a node, where nobody else would bring the task back: an hour, or as long as it is let live.
PATIENT_WAITS_S = (*WAITS_S, *[30] * 120)


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


def _start_one() -> str:
    return f'eval "$({hints.make("-s", "slurm-up")})"'


def ask(command: Sequence[str], waits_s: Iterable[float] = WAITS_S) -> str:
    """What the command prints. A controller that is busy or away is waited for.

    Raises ClusterError where the command is missing, refuses, or the controller stays away.
    """
    conf = os.environ.get("SLURM_CONF")
    if conf and not Path(conf).is_file():
        raise ClusterError(f"SLURM_CONF: {conf} is not there; unset it, or start that cluster again: {_start_one()}")
    waits = list(waits_s)
    for wait_s in [*waits, None]:
        try:
            done = subprocess.run(
                list(command), env=plain_environment(), capture_output=True, text=True, timeout=_TIMEOUT_S, check=False
            )
        except FileNotFoundError:
            raise ClusterError(
                f"{command[0]}: no such command; are you on a login node of the cluster? "
                f"(a cluster on this machine starts with: {_start_one()})"
            ) from None
        except OSError as error:
            raise not_executable(command[0], error) from None
        except subprocess.TimeoutExpired:
            problem = f"no answer in {_TIMEOUT_S} s"
        else:
            if done.returncode == 0:
                return done.stdout
            problem = (done.stderr or done.stdout).strip() or f"exit code {done.returncode}"
            if not is_busy(problem):
                raise ClusterError(f"{command[0]}: {_reason(problem)}")
        if wait_s is not None:
            time.sleep(wait_s)
    raise ClusterError(
        f"{command[0]}: {problem}; the controller did not answer {len(waits) + 1} times, try again later"
    )


def plain_environment() -> dict[str, str]:
    """This process's environment without its settings for SLURM's commands."""
    return {name: value for name, value in os.environ.items() if name in LOCATIONS or not _SETTINGS.match(name)}


def not_executable(program: str, error: OSError) -> ClusterError:
    """What to raise where the system refuses to start a program that is there."""
    return ClusterError(
        f"{program}: cannot be executed: {error.strerror}. This machine's SLURM installation is broken; "
        "repair it, or load the site's SLURM module"
    )


def is_busy(problem: str) -> bool:
    """Whether SLURM's words mean that the controller could not answer now; what it was asked may have been done."""
    return _BUSY.search(problem) is not None


def gres_types() -> list[str]:
    """The GPU types of the site's nodes, as gres names them: `1g.12gb`, `nvidia_h100_nvl_1g.12gb`."""
    found = re.findall(r"gpu:([^:,()\s]+):\d+", ask(["sinfo", "-h", "-o", "%G"]))
    return sorted(set(found))


def check_programs() -> None:
    """Raises ClusterError where a program that a launch needs is not on this machine.

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
    found = re.search(r"^MaxArraySize\s*=\s*(\d+)", ask(["scontrol", "show", "config"]), re.M)
    return int(found.group(1)) if found else 1001


def queued(names: Sequence[str]) -> list[QueuedJob]:
    """The tasks of the jobs with these names, each array element by itself: those that wait, run or end, and those
    that ended so short a time ago that the controller still knows them (MinJobAge), with their last state.
    """
    if not names:
        return []
    given = ",".join(names)
    few = len(given) <= _ARGUMENT_BYTES
    text = ask(["squeue", "-h", "-r", "-t", "all", *(["-n", given] if few else []), "-o", "%i|%j|%T|%r|%L"])
    rows = [line.strip().split("|") for line in text.splitlines() if line.strip()]
    jobs = [QueuedJob(*row) for row in rows if len(row) == 5]
    # Too many for a command: squeue has got every job from the controller anyway, and only looks for the names in them.
    wanted = set(names)
    return jobs if few else [job for job in jobs if job.name in wanted]


def cancel(job_ids: Sequence[str]) -> None:
    """Cancel jobs or array elements; those that are over already are passed over."""
    for part in _parts(job_ids):
        ask(["scancel", "--quiet", *part])


def _parts(job_ids: Sequence[str]) -> Iterator[Sequence[str]]:
    """As many ids at a time as fit into one argument of a command."""
    step = _ARGUMENT_BYTES // (1 + max((len(job_id) for job_id in job_ids), default=0))
    for start in range(0, len(job_ids), step):
        yield job_ids[start : start + step]


def _reason(problem: str) -> str:
    """SLURM's own words; of the many lines that a machine without a cluster gives, what they come to."""
    if "Could not establish a configuration source" in problem:
        return "no cluster is known on this machine (SLURM_CONF is not set, and there is no slurm.conf in its place)"
    return problem


def release(job_ids: Sequence[str]) -> None:
    """Let jobs start that are held in the queue."""
    for part in _parts(job_ids):
        ask(["scontrol", "release", ",".join(part)])


def send_once(name: str, send: Callable[[], str]) -> str:
    """What `send` returns, the id of a job that it submits as `name`.

    A busy controller is waited for, and asked whether it has taken the job before the next try; where it takes an
    earlier one late, the surplus one is cancelled. Raises ClusterError.
    """
    for number, wait_s in enumerate((*WAITS_S, None)):
        try:
            job_id = send()
            if number:
                cancel(sorted({job.array_id for job in queued([name])} - {job_id}))
            return job_id
        except ClusterError as error:
            if wait_s is None or not is_busy(str(error)):
                raise
            print(f"{error}; trying again in {wait_s} s", file=sys.stderr, flush=True)
        time.sleep(wait_s)
        taken = queued([name])
        if taken:
            return taken[0].array_id
    raise AssertionError("unreachable")


def submit_script(name: str, script: str, options: Sequence[str]) -> str:
    """Submit a bash script as the job `name`, with sbatch's long options. Returns the job id; raises ClusterError."""
    command = ["sbatch", "--parsable", f"--job-name={name}", *options, f"--wrap={script}"]
    return send_once(name, lambda: ask(command, waits_s=()).strip().partition(";")[0])


def requeue(job_id: str) -> None:
    """Put a running job or array element back into the queue; nothing to do where SLURM has done so itself.

    A controller that is away is waited for as long as the task is let live: nobody else would bring it back.
    """
    try:
        ask(["scontrol", "requeue", job_id], waits_s=PATIENT_WAITS_S)
    except ClusterError as error:
        if "pending execution" not in str(error):
            raise


@dataclass(frozen=True)
class JobEnd:
    """One execution of a job or array element, as accounting has it; times are local, None where they are unknown."""

    job_id: str
    cluster: str
    state: str
    start: datetime | None
    end: datetime | None


def ends(job_ids: Sequence[str], waits_s: Iterable[float] = (1, 2)) -> list[JobEnd]:
    """Every execution of these jobs, also before a requeue, oldest first. Raises ClusterError without accounting."""
    command = ["sacct", "-D", "-n", "-P", "-X", "-o", "JobID,Cluster,State,Start,End,DerivedExitCode", "-j"]
    answers = [ask([*command, ",".join(part)], waits_s) for part in _parts(job_ids)]
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
    """What scontrol says of a job at this moment; times are local, None where SLURM has none."""

    state: str
    restarts: int
    limit: timedelta | None
    start: datetime | None
    end: datetime | None
    preempted: datetime | None


def show_job(job_id: str, waits_s: Iterable[float] = (0.5, 1, 2)) -> JobFacts:
    """Ask the controller about one job or array element. Raises ClusterError."""
    text = ask(["scontrol", "--oneliner", "show", "job", job_id], waits_s)
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
