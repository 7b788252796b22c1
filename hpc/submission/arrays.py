"""The missing runs of a sweep as SLURM arrays: as many as the site takes, each cell at most once."""

from __future__ import annotations

import re
import time
from collections.abc import Collection, Sequence
from dataclasses import replace

from hpc import slurm
from hpc.recovery.reconcile import blocked_by_cause, classify_runs
from hpc.submission.plan import SiteLimits, Target, plan_arrays
from hpc.submission.profile import Profile, choose_gres
from hpc.submission.submit import in_queue, next_number, show_in_logs, submit, surplus_tasks
from src import hints
from src.config.schema import Config
from src.errors import ClusterError
from src.runs.code_snapshot import sweep_code
from src.runs.planning_lock import folder_lock
from src.runs.rundir import RunDir, SweepDir
from src.text import counted, shortlist

# Of a user, an account or a QOS: how many jobs may be submitted (slurm.schedmd.com/resource_limits.html).
_SUBMIT_LIMIT = re.compile(r"MaxSubmit|GrpSubmit|accounting/QOS policy|submit limit|job count", re.I)
# squeue's reason of a task whose requeue failed on its node; a hold by the user or an admin is left as it is.
_HELD = "requeued held"
# A task that is cancelled has KillWait (30 s) to save, SLURM's epilog and UnkillableStepTimeout (60 s) come after it.
_ENDING_S, _POLL_S = 180.0, 2.0


def ask_site(profile_name: str, profile: Profile) -> SiteLimits:
    """Asked once, before anything is written. Raises ClusterError."""
    try:
        site = SiteLimits(choose_gres(profile), slurm.max_array_size())
        slurm.check_programs()
        return site
    except ClusterError as error:
        raise type(error)(
            f"{error}\nprofile {profile_name}; to run on this machine instead: {hints.again('--cluster', 'local')}"
        ) from None


def submit_missing(
    sweep: SweepDir,
    profile: Profile,
    site: SiteLimits,
    config: Config,
    only: Collection[str] | None = None,
    *,
    by_user: bool = True,
) -> None:
    """Submit what is neither done nor on its way, of the runs `only` if they are given, and say what became of it.

    `by_user`: called by a command of the user's, which asks for cancelled runs again.
    """
    # One submitter at a time: who comes second sees the first one's jobs in the queue.
    with folder_lock(sweep.path):
        queue = _settled_queue(sweep, only) if by_user else in_queue(sweep)
        by_state = classify_runs(sweep, queue)
        _cancel_surplus(sweep, queue)
        _release_held(queue)
        wanted = [*by_state.to_submit, *(by_state.cancelled if by_user else [])]
        to_submit = [run for run in wanted if only is None or run.name in only]
        for run in to_submit if by_user else []:
            run.lift_cancel()
        queued_tasks = {job.job_id for jobs in queue.values() for job in jobs}
        submitted = 0
        if to_submit:
            show_in_logs(config, sweep.jobs)
            submitted = _submit_all(to_submit, Target(sweep, profile, site, sweep_code(sweep)), queued_tasks)
    print(f"{len(by_state.done)} done, {len(by_state.queued)} in the queue before, {submitted} submitted")
    if by_state.running_elsewhere:
        print(f"executed by processes outside of SLURM: {counted(len(by_state.running_elsewhere), 'run')}")
    if by_state.blocked:
        print(f"{counted(len(by_state.blocked), 'run')} failed, not submitted again without a retry:")
        print(blocked_by_cause(by_state.blocked))
    print(f"to see how they stand: {hints.command('hpc.launch', 'status', sweep.name)}")


def _settled_queue(sweep: SweepDir, only: Collection[str] | None) -> slurm.Queue:
    """The queue once no task is ending whose run is not done: only then is it known whether the run is to be submitted.

    So a launch that follows a cancel submits what the cancelled tasks are still saving. A task that does not come to
    its end is left to the next call.
    """
    deadline, said = time.monotonic() + _ENDING_S, False
    while True:
        queue = in_queue(sweep)
        ending = _ending_tasks(sweep, queue, only)
        shown = shortlist(ending)
        if ending and time.monotonic() >= deadline:
            print(f"{shown}: not over after {_ENDING_S:.0f} s; the same command submits what they leave later")
        if not ending or time.monotonic() >= deadline:
            return queue
        if not said:
            print(f"waiting until tasks have saved and ended: {shown}", flush=True)
            said = True
        time.sleep(_POLL_S)


def _ending_tasks(sweep: SweepDir, queue: slurm.Queue, only: Collection[str] | None) -> list[str]:
    tasks = {
        job.job_id
        for name, jobs in queue.items()
        if only is None or name in only
        for job in jobs
        if slurm.phase(job.state) == "ending" and not sweep.run(name).is_done()
    }
    return sorted(tasks)


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


def _submit_all(runs: Sequence[RunDir], target: Target, queued_tasks: Collection[str]) -> int:
    """Submit as many of the runs as the site takes, beside the tasks that are `squeue`. Returns the number of runs;
    raises ClusterError if it takes none.
    """
    sweep, submitted, ids = target.sweep, 0, dict[str, str]()
    queued, before = len(queued_tasks), sorted({task.partition("_")[0] for task in queued_tasks})
    plans = plan_arrays(target, runs, next_number(sweep), queued, before)
    while plans:
        plan = plans[0].with_ids(ids)
        try:
            made = submit(plan, sweep)
        except ClusterError as error:
            # The limit may leave room for fewer: a few calls more, whatever the number of runs.
            if _SUBMIT_LIMIT.search(str(error)) and len(plan.tasks) > 1:
                target = replace(target, site=replace(target.site, array_size=len(plan.tasks) // 2))
                plans = plan_arrays(target, runs[submitted:], next_number(sweep), queued, before)
                continue
            if not submitted:
                raise
            left = counted(len(runs) - submitted, "run")
            print(f"{error}\n{left} left; to submit the rest later: {hints.again()}")
            break
        count, ids[plan.job_name] = sum(len(each) for each in plan.tasks), str(made.job_id)
        print(
            f"submitted {counted(count, 'run')} as {made.job_name}: job {made.job_id} ({plan})",
            flush=True,
        )
        if plan.after:
            waits = f"max_parallel is {target.profile.max_parallel}, of all of them together"
            print(f"  it starts when {_jobs(plan.after)} over: {waits}")
        submitted, queued = submitted + count, queued + len(plan.tasks)
        before = [*([] if plan.after else before), str(made.job_id)]
        plans = plans[1:]
    return submitted


def _jobs(ids: Sequence[str]) -> str:
    return f"job {ids[0]} is" if len(ids) == 1 else f"jobs {shortlist(ids)} are"
