"""Print what a launch would do: the state of its cells, and the plan that it would submit."""

from __future__ import annotations

from hpc import slurm
from hpc.submission.placement import Placement
from hpc.submission.plan import Target, plan_arrays
from hpc.submission.prepare import code_to_use
from hpc.submission.profile import Profile
from hpc.submission.site import SiteLimits, choose_gres
from hpc.submission.submissions import in_queue, next_number
from relay.errors import ClusterError
from relay.log import log
from relay.runs.rundir import SweepDir
from relay.runs.sweeps import Request
from relay.text import counted


def print_plan(request: Request, existing: SweepDir | None, placement: Placement, *, new_code: bool) -> None:
    """Print each cell with its state, then the plan as sbatch would get it. Writes nothing."""
    sweep, profile = existing or SweepDir(request.runs_dir / request.new_name()), placement.profile
    runs = [sweep.run(cell.name) for cell in request.cells]
    # A sweep of the same second has the name that a new one would have.
    undone = [run for run in runs if not (existing and run.is_done())]
    site, queue = _ask_site(existing, profile, len(undone)) if undone and profile.executor == "slurm" else (None, {})
    states = {run: "in the queue" if run.name in queue else "" for run in undone}
    to_submit = [run for run, state in states.items() if not state]
    place = f"{sweep.path} ({'exists' if existing else 'new'})"
    print(f"{counted(len(request.cells), 'run')} of {request.kind} in {place}; {len(to_submit)} to do:")
    for run in runs:
        print(f"  {run.name}  {states.get(run, 'done')}".rstrip())
    if not to_submit:
        print("nothing to submit")
        return
    if data := request.to_prepare():
        print(data)
    if site is None:
        print(f"{placement}: on this machine, at most {profile.max_parallel} at a time")
        return
    target = Target(sweep, profile, site, code_to_use(sweep, new_code=new_code))
    tasks = {job.job_id for jobs in queue.values() for job in jobs}
    plans = plan_arrays(
        target, to_submit, next_number(sweep), len(tasks), sorted({id_.partition("_")[0] for id_ in tasks})
    )
    # A later array names the earlier ones that it waits for by their ids, which only sbatch gives.
    ids = {plan.job_name: f"<the id of {plan.job_name}>" for plan in plans}
    for plan in plans:
        print(f"{placement}: {plan}; sbatch gets:\n\n{plan.with_ids(ids).sbatch_text}")


def _ask_site(existing: SweepDir | None, profile: Profile, runs: int) -> tuple[SiteLimits, slurm.Queue]:
    """The site's limits and the sweep's queue. If SLURM does not answer: the profile as it is, and one array."""
    try:
        return SiteLimits(choose_gres(profile), *slurm.site_settings()), in_queue(existing) if existing else {}
    except ClusterError as error:
        log.warning(f"SLURM did not answer; this plan does not know the limits of the site: {error}")
        return SiteLimits(profile.gres or (profile.slice and f"gpu:{profile.slice}:1"), runs), {}
