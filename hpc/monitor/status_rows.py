"""One status row for each run: the run directory, joined with SLURM's queue.

The directory says how far a run is and how its attempts ended. SLURM adds only what it alone knows: what is queued,
why it waits, and the time left. Nothing is written.
"""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from hpc.recovery.diagnosis import ends_of, infer_end_cause
from hpc.recovery.reconcile import blocked_by_cause
from hpc.slurm import Queue, QueuedJob, phase
from hpc.submission.forecast import show_hours
from relay import hints
from relay.errors import RunError
from relay.runs.attempt import Attempts, causes_of, last_attempt, total_steps_of, unfinished_attempt, wasted_s
from relay.runs.causes import Blocked, damaged, why_blocked
from relay.runs.environment import Environment, environments_of, resumed_under
from relay.runs.lifecycle import last_activity, reached_step, state_of_run
from relay.runs.rundir import RunDir, SweepDir
from relay.runs.slice_time import slice_time
from relay.text import counted

FINISHED = ("done", "diverged")
# squeue's reasons why a task waits (slurm.schedmd.com/job_reason_codes.html), in words. The first that fits counts.
_REASONS = (
    (r"Priority", "tasks with a higher priority"),
    (r"Resources", "a free slice"),
    (r"JobArrayTaskLimit", "a place in its array (max_parallel)"),
    (r"Dependency", "the jobs before it"),
    (r"DependencyNeverSatisfied", "nothing: a job that it depends on failed"),
    (r"BeginTime|Prolog|Cleaning|None", "its start, within minutes"),
    (r"JobHeldUser", "its user, who holds it"),
    (r"JobHeldAdmin", "an administrator, who holds it"),
    (r".*requeued held", "a release: it could not be started"),
    (r"ReqNodeNotAvail.*|.*Nodes required.*|NodeDown", "nodes that are down, drained or reserved"),
    (r"Partition(Down|Inactive)", "its partition, which is closed"),
    (r"PartitionTimeLimit|PartitionNodeLimit", "nothing: it asks for more than its partition allows"),
    (r"Reservation.*", "its reservation"),
    (r"Licenses", "a license"),
    (r"(Max|Grp).*|QOS.*|Assoc.*", "a limit of your account or QOS"),
)


@dataclass(frozen=True)
class RunStatus:
    """What `status` shows of a run; None where there is nothing to show.

    `step`: how far it is, with the total if that is known. `attempts`: their number, `causes`: why they were
    interrupted. `waits_for` and `time_left`: what SLURM says of its job.
    """

    run: str
    state: str
    step: str | int | None = None
    attempts: int | None = None
    causes: str | None = None
    job: str | None = None
    waits_for: str | None = None
    error: str | None = None
    environment: str | None = None
    time_left: str | None = None

    def columns(self) -> dict[str, Any]:
        """Its values by the names of the columns."""
        return {name.replace("_", " "): value for name, value in asdict(self).items()}


@dataclass(frozen=True)
class SweepStatus:
    """A row for each run of a sweep, the blocked runs, the seconds spent on slices (overhead: those before the first
    steps).

    `left`: the part that is left of each run that is queued or running, by name; `hours_left`: until these are done,
    None if not known.
    """

    rows: Sequence[RunStatus]
    blocked: Mapping[RunDir, Blocked]
    used_s: float
    overhead_s: float
    wasted_s: float
    left: Mapping[str, float]
    hours_left: float | None = None

    @property
    def in_flight(self) -> int:
        """How many runs are queued or running."""
        return len(self.left)

    def summary(self) -> str:
        """`48 runs: 40 done, 7 queued, 1 running`, the slice-hours, and commands for what failed or is idle."""
        counts = Counter(row.state for row in self.rows)
        lines = [
            f"{counted(len(self.rows), 'run')}: "
            + ", ".join(f"{count} {state}" for state, count in sorted(counts.items()))
        ]
        if self.left:
            done = sum(row.state in FINISHED for row in self.rows)
            progress = 100 * (1 - sum(self.left.values()) / (len(self.left) + done))
            soon = f"; about {show_hours(self.hours_left)} h to the end, once they run" if self.hours_left else ""
            lines.append(f"progress of what is done, queued or running: {progress:.0f} %{soon}")
        if self.used_s:
            parts = [f"used: {show_hours(self.used_s / 3600)} slice-hours"]
            if self.overhead_s:
                share = 100 * self.overhead_s / self.used_s
                parts.append(f"{show_hours(self.overhead_s / 3600)} of them overhead ({share:.0f} %)")
            if self.wasted_s:
                parts.append(f"{show_hours(self.wasted_s / 3600)} of them for steps that were repeated")
            lines.append(", ".join(parts))
        idle = len(self.rows) - self.in_flight - len(self.blocked) - sum(counts[state] for state in FINISHED)
        if idle:
            lines.append(f"neither done nor queued: {counted(idle, 'run')}; to submit: {hints.again()}")
        if self.blocked:
            lines += ["failed, and not restarted automatically:", blocked_by_cause(self.blocked)]
        return "\n".join(lines)


def sweep_status(sweep: SweepDir, queue: Queue, only: str | None = None, now: float | None = None) -> SweepStatus:
    """The status of all runs of the sweep, or of the run `only`; `now` in seconds since 1970.

    If attempts were lost without an end record, one query to accounting names their causes.
    """
    runs = [run for run in sweep.runs() if only in (None, run.name)]
    attempts, blocked = _read_attempts(runs)
    attempts |= _with_inferred_ends(
        {run: own for run, own in attempts.items() if run.name not in queue and not run.alive()}
    )
    # A task may execute several runs (cells_per_job of the profile).
    runs_of_job = Counter(job.job_id for jobs in queue.values() for job in jobs)
    rows = []
    for run in runs:
        jobs = queue.get(run.name, ())
        try:
            if run not in blocked:
                rows.append(_row(run, attempts[run], jobs, alone=not jobs or runs_of_job[jobs[0].job_id] == 1))
        except RunError as error:
            blocked[run] = damaged(str(error))
        if run in blocked:
            rows.append(_damaged_row(run, blocked[run], jobs))
            continue
        may_be_blocked = not jobs and rows[-1].state not in ("running", "cancelled", *FINISHED)
        reason = why_blocked(attempts[run]) if may_be_blocked else None
        if reason:
            blocked[run] = reason
            rows[-1] = replace(rows[-1], state=reason.cause.lower())
    moment = time.time() if now is None else now
    in_flight = [
        row
        for run, row in zip(runs, rows, strict=True)
        if row.state not in FINISHED and (run.name in queue or row.state == "running")
    ]
    return SweepStatus(
        rows,
        blocked,
        *slice_time(attempts.values() if only is None else _alone(attempts.values()), moment),
        sum(wasted_s(each) for each in attempts.values()),
        {row.run: _left(row) for row in in_flight},
    )


def _left(row: RunStatus) -> float:
    """The part of a run that is left, by its steps."""
    done, _, total = str(row.step or 0).partition("/")
    return 1 - int(done) / int(total) if total else 1.0


def _read_attempts(runs: Sequence[RunDir]) -> tuple[dict[RunDir, Attempts], dict[RunDir, Blocked]]:
    """The attempts of each run, and the runs whose attempts cannot be read."""
    attempts, blocked = dict[RunDir, Attempts](), {}
    for run in runs:
        try:
            attempts[run] = run.attempts()
        except RunError as error:
            blocked[run] = damaged(str(error))
    return attempts, blocked


def _with_inferred_ends(attempts: Mapping[RunDir, Attempts]) -> dict[RunDir, Attempts]:
    """The attempts of the runs whose last one has no end record, with its cause and end. In memory only: another user
    may be reading.
    """
    lost = {run: last for run, own in attempts.items() if (last := unfinished_attempt(own))}
    ends = ends_of(list(lost.values())) if lost else []
    inferred: dict[RunDir, Attempts] = {}
    for run, last in lost.items():
        cause, end = infer_end_cause(last, ends)
        inferred[run] = (*attempts[run][:-1], replace(last, cause=cause, end=end or last_activity(run)))
    return inferred


def _row(run: RunDir, attempts: Attempts, jobs: Sequence[QueuedJob], *, alone: bool) -> RunStatus:
    result, job, last = run.result(), jobs[0] if jobs else None, last_attempt(attempts)
    total = total_steps_of(attempts)
    step = result.get("steps") if result else reached_step(run) if attempts else 0
    running = job is not None and phase(job.state) == "running"
    return RunStatus(
        run=run.name,
        state=_state(run, result, attempts, job, alone=alone),
        step=f"{step}/{total}" if total and step is not None else step or None,
        attempts=len(attempts) or None,
        causes=" ".join(causes_of(attempts)) or None,
        job=_ids(jobs) or (last.job if last else None),
        waits_for=_in_words(job.reason) if job and phase(job.state) == "waiting" else None,
        error=_on_one_line(last.error) if last and not result else None,
        environment=_resumed(environments_of(result, attempts)),
        time_left=job.time_left if job and running else None,
    )


def _in_words(reason: str) -> str:
    """A reason of squeue's in words, with SLURM's name for a limit, of which there are dozens; as it is if unknown."""
    words = next((words for pattern, words in _REASONS if re.fullmatch(pattern, reason)), reason)
    return f"{words}: {reason}" if words.startswith("a limit") else words


def _damaged_row(run: RunDir, damage: Blocked, jobs: Sequence[QueuedJob]) -> RunStatus:
    # The row names the run, so the error needs only the file inside its folder.
    error = _on_one_line(damage.detail.removeprefix(f"{run.path}/"))
    return RunStatus(run.name, "damaged", job=_ids(jobs), error=error)


def _ids(jobs: Sequence[QueuedJob]) -> str | None:
    return " ".join(job.job_id for job in jobs) or None


def _state(
    run: RunDir, result: Mapping[str, Any] | None, attempts: Attempts, job: QueuedJob | None, *, alone: bool
) -> str:
    if result or job is None:
        return state_of_run(run, result, attempts)
    # The task passes it by, whatever else it executes.
    if run.cancelled() and not unfinished_attempt(attempts):
        return "cancelled"
    job_phase = phase(job.state)
    if job.state == "RUNNING":
        return "running" if alone or unfinished_attempt(attempts) else "waiting in task"
    # Such as suspended or configuring. A state that we do not know is shown as SLURM names it.
    if job_phase == "running":
        return job.state.lower()
    return {"waiting": "queued", "ending": "ending"}.get(job_phase, job.state)


def _resumed(environments: Sequence[Environment]) -> str | None:
    changes = resumed_under(environments)
    return f"resumed under {changes}" if changes else None


def _on_one_line(error: str | None) -> str | None:
    return " ".join(error.split())[:100] if error else None


def _alone(runs: Iterable[Attempts]) -> list[Attempts]:
    """The attempts without the start of their job, because other runs may have used its time since then."""
    return [[replace(attempt, job_start=None) for attempt in attempts] for attempts in runs]
