"""What a launch would do, printed: its cells, and the plan that would be submitted."""

from __future__ import annotations

from datetime import datetime

from hpc import slurm
from hpc.submission.plan import Target, plan_arrays
from hpc.submission.prepare import code_to_use
from hpc.submission.profile import Profile
from hpc.submission.site import SiteLimits, choose_gres
from hpc.submission.submissions import in_queue, next_number
from src.errors import ClusterError
from src.log import log
from src.runs.rundir import RunDir, SweepDir
from src.runs.sweeps import Request
from src.text import counted


def _runs_of(request: Request, found: SweepDir | None) -> list[RunDir]:
    """The runs of the sweep that was found, under its own names; else those that a new one would have."""
    if found:
        return found.runs()
    sweep = SweepDir(request.runs_dir / request.name_at(datetime.now()))
    return [sweep.run(cell.name) for cell in request.cells]


def print_plan(
    request: Request, found: SweepDir | None, profile_name: str, profile: Profile, *, new_code: bool
) -> None:
    """Print each cell with what would happen to it, then the plan as sbatch would get it."""
    runs = _runs_of(request, found)
    sweep, undone = runs[0].sweep(), [run for run in runs if not run.is_done()]
    site, queue = _ask_for_plan(found, profile, len(undone)) if undone and profile.executor == "slurm" else (None, {})
    words = {run: "in the queue" if run.name in queue else "" for run in undone}
    to_submit = [run for run, word in words.items() if not word]
    where = f"{sweep.path} ({'exists' if found else 'new'})"
    print(f"{counted(len(request.cells), 'run')} of {request.kind} in {where}; {len(to_submit)} to do:")
    for run in runs:
        print(f"  {run.name}  {words.get(run, 'done')}".rstrip())
    if not to_submit:
        print("nothing is left to submit")
        return
    if site is None:
        print(f"profile {profile_name}: on this machine, at most {profile.max_parallel} at a time")
        return
    target = Target(sweep, profile, site, code_to_use(sweep, new_code=new_code))
    tasks = {job.job_id for jobs in queue.values() for job in jobs}
    plans = plan_arrays(
        target, to_submit, next_number(sweep), len(tasks), sorted({id_.partition("_")[0] for id_ in tasks})
    )
    ids = {plan.job_name: f"<the id of {plan.job_name}>" for plan in plans}
    for plan in plans:
        print(f"profile {profile_name}: {plan}; sbatch gets:\n\n{plan.with_ids(ids).sbatch_text}")


def _ask_for_plan(found: SweepDir | None, profile: Profile, runs: int) -> tuple[SiteLimits, slurm.Queue]:
    """What the launch would be told; where nobody answers, the profile as it is, and arrays of any size."""
    try:
        return SiteLimits(choose_gres(profile), slurm.max_array_size()), in_queue(found) if found else {}
    except ClusterError as error:
        log.warning(f"the site could not be asked, what follows takes the profile as it is: {error}")
        return SiteLimits(profile.gres or (profile.slice and f"gpu:{profile.slice}:1"), runs), {}
