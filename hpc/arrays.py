"""The missing runs of a sweep as SLURM arrays: as many as the site takes, each cell at most once."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from hpc import slurm
from hpc.cluster import Profile, choose_gres
from hpc.inspection import show_in_logs
from hpc.plan import SubmitPlan, job_name, make_plan
from hpc.stock import refusals_by_word, take_stock
from hpc.submit import in_queue, submissions, submit, surplus_tasks
from src.code_snapshot import sweep_code
from src.config import Config
from src.errors import ClusterError
from src.rundir import RunDir, SweepDir
from src.sweeps import planning
from src.tables import counted

# Of a user, an account or a QOS: how many jobs may be submitted (slurm.schedmd.com/resource_limits.html).
_SUBMIT_LIMIT = re.compile(r"MaxSubmit|GrpSubmit|accounting/QOS policy|submit limit|job count", re.I)
# squeue's reason of a task whose requeue failed on its node; a hold by the user or an admin is left as it is.
_HELD = "requeued held"


@dataclass(frozen=True)
class Site:
    """What a launch needs to know of a site: the slice by its name there, and the largest array."""

    gres: str | None
    array_size: int


def ask_site(profile_name: str, profile: Profile) -> Site:
    """Asked once, before anything is written. Raises ClusterError."""
    try:
        site = Site(choose_gres(profile), slurm.max_array_size())
        slurm.check_programs()
        return site
    except ClusterError as error:
        raise ClusterError(
            f"{error}\n(profile {profile_name}; to run on this machine instead: --cluster local, or make CLUSTER=local)"
        ) from None


def submit_missing(
    sweep: SweepDir,
    profile: Profile,
    site: Site,
    config: Config,
    only: Collection[str] | None = None,
    *,
    by_user: bool = True,
) -> None:
    """Submit what is neither done nor on its way, of the runs `only` if they are given, and say what became of it.

    `by_user`: called by a command of the user's, which asks for cancelled runs again.
    """
    # One submitter at a time: who comes second sees the first one's jobs in the queue.
    with planning(sweep.path):
        queue = in_queue(sweep)
        stock = take_stock(sweep, queue)
        _cancel_surplus(sweep, queue)
        _release_held(queue)
        wanted = [*stock.missing, *(stock.cancelled if by_user else [])]
        missing = [run for run in wanted if only is None or run.name in only]
        for run in missing if by_user else []:
            run.lift_cancel()
        submitted = _submit_all(missing, sweep, profile, site, config) if missing else 0
    print(f"{len(stock.done)} done, {len(stock.flying)} in the queue before, {submitted} submitted")
    if stock.elsewhere:
        print(f"executed by processes outside of SLURM: {counted(len(stock.elsewhere), 'run')}")
    if stock.refused:
        print(f"{counted(len(stock.refused), 'run')} failed, not submitted again without a retry:")
        print(refusals_by_word(stock.refused))
    print(f"see how they stand: python -m hpc.launch status {sweep.name}")


def _cancel_surplus(sweep: SweepDir, queue: slurm.Queue) -> None:
    """A controller that answers late may have taken one array twice."""
    surplus = surplus_tasks(sweep, queue)
    if surplus:
        slurm.cancel(surplus)
        print(f"{counted(len(surplus), 'task')} too many in the queue; cancelled: {', '.join(surplus[:5])}")


def _release_held(queue: slurm.Queue) -> None:
    """SLURM itself holds a task that it could not start again, and would do so for ever."""
    tasks = [job for jobs in queue.values() for job in jobs]
    held = sorted({job.job_id for job in tasks if job.state == "PENDING" and _HELD in job.reason})
    if held:
        slurm.release(held)
        print(f"{counted(len(held), 'task')} held by SLURM ({_HELD}: {', '.join(held[:5])}): released")


def _submit_all(runs: Sequence[RunDir], sweep: SweepDir, profile: Profile, site: Site, config: Config) -> int:
    """Submit as many of the runs as the site takes. Returns their number; raises ClusterError where it takes none."""
    code = sweep_code(sweep)
    show_in_logs(config, sweep.jobs)
    tasks, size, submitted = tasks_of(runs, profile), max(1, site.array_size), 0
    while tasks:
        part = tasks[:size]
        try:
            made = submit(plan_of(sweep, profile, site, part, code), sweep)
        except ClusterError as error:
            # The limit may leave room for fewer: a few calls more, whatever the number of runs.
            if _SUBMIT_LIMIT.search(str(error)) and len(part) > 1:
                size = len(part) // 2
                continue
            if not submitted:
                raise
            print(f"{error}\n{counted(len(runs) - submitted, 'run')} left; the same command submits what is left later")
            break
        count = sum(len(each) for each in part)
        submitted += count
        print(
            f"submitted {counted(count, 'run')} as {made.job_name}: job {made.job_id} ({show_shape(part, profile)})",
            flush=True,
        )
        tasks = tasks[len(part) :]
    return submitted


def tasks_of(runs: Sequence[RunDir], profile: Profile) -> list[Sequence[RunDir]]:
    """The runs as tasks of `cells_per_job`."""
    each = profile.cells_per_job
    return [runs[start : start + each] for start in range(0, len(runs), each)]


def show_shape(tasks: Sequence[Sequence[RunDir]], profile: Profile) -> str:
    """In a few words: how many tasks, how many at a time, how many runs in each."""
    many = f"one array of {counted(len(tasks), 'task')}, at most {profile.max_parallel} at a time"
    each = f", up to {profile.cells_per_job} runs in each" if profile.cells_per_job > 1 else ""
    return (many if len(tasks) > 1 else "one job") + each


def plan_of(
    sweep: SweepDir,
    profile: Profile,
    site: Site,
    tasks: Sequence[Sequence[RunDir]],
    code: Path,
    ahead: int = 0,
) -> SubmitPlan:
    """The next submission of a sweep, or the one `ahead` after it."""
    paths = [[run.path.absolute() for run in runs] for runs in tasks]
    name = job_name(sweep.path, len(submissions(sweep)) + 1 + ahead)
    return make_plan(profile, site.gres, name, paths, sweep.jobs.absolute(), code)
