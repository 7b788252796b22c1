"""Launch runs: plan them, then print the plan (a dry run, which writes nothing) or execute it."""

from __future__ import annotations

from hpc import slurm
from hpc.submission.execute import execute
from hpc.submission.forecast import forecast_of, refuse_above, unfinished_cells, warn_of_memory, warn_of_short_lead
from hpc.submission.here import execute_here
from hpc.submission.outcome import refuse_unfinished, show_outcome
from hpc.submission.placement import Placement, place, remember_profile
from hpc.submission.plan import Target, plan_arrays
from hpc.submission.prepare import choose_code, code_to_use, prepare_sweep, say_other_metric
from hpc.submission.profile import Profile
from hpc.submission.site import SiteLimits, ask_site, check_job_folder, choose_gres
from hpc.submission.submissions import in_queue, next_number
from hpc.submission.trust import check_sweep
from hpc.works import work_of
from relay import hints
from relay.errors import ClusterError
from relay.log import log, say
from relay.runs.rundir import SweepDir
from relay.runs.sweeps import Request, describe_progress, find_sweep
from relay.text import counted, shortlist


def launch(
    request: Request,
    cluster: str | None,
    *,
    dry_run: bool = False,
    fresh: bool = False,
    new_code: bool = False,
    max_slice_hours: float | None = None,
    here: bool = False,
) -> SweepDir | None:
    """Execute the requested runs that are neither done nor in the queue. Returns their sweep.

    On this machine, it waits for them, and shows their results. A dry run prints the plan, writes nothing, and returns
    None. `here`: execute the current code in this process, one run after the other. Raises RunError if the forecast is
    above `max_slice_hours`, or if runs on this machine are not done, ClusterError if SLURM does not answer.
    """
    work = work_of(request.kind)
    existing = None if fresh else find_sweep(request.runs_dir, request.kind, request.key)
    placement = place(request.runs_dir, cluster, existing.meta() if existing else None, request.inputs)
    profile = placement.profile
    unfinished = unfinished_cells(request, existing)
    forecast = forecast_of(request, unfinished, profile)
    check_job_folder(request.runs_dir)
    if unfinished:
        request.check()
    if dry_run:
        print_plan(request, existing, placement, new_code=new_code)
        if unfinished:
            print(forecast)
            warn_of_short_lead(profile, forecast)
            warn_of_memory(profile, forecast)
            refuse_above(max_slice_hours, forecast)
        return None
    if existing:
        check_sweep(existing)
    refuse_above(max_slice_hours, forecast)
    warn_of_short_lead(profile, forecast)
    warn_of_memory(profile, forecast)
    site = None if here or profile.executor == "local" else ask_site(placement.name, profile)
    sweep, new = prepare_sweep(work, request, fresh=fresh)
    if not new:
        say_other_metric(sweep, request)
        choose_code(sweep, work.deciding, request.project, new_code=new_code)
    undone = [run.name for run in sweep.runs() if not run.is_done()]
    if undone:
        where = "in this process" if here else str(placement)
        say(f"{sweep.path}: {describe_progress(sweep, new=new)}; {where}")
        if new and work.reuses and len(undone) < len(sweep.runs()):
            say(f"to execute in full: {counted(len(undone), 'run')}: {shortlist(undone)}")
        say(str(forecast))
        if not here:
            remember_profile(sweep, placement.name)
    else:
        _say_done_before(sweep, placement)
    if here:
        execute_here(sweep, work)
    else:
        execute(sweep, profile, site, request.paths)
    if site is None:
        show_outcome(sweep, request.paths)
        refuse_unfinished(sweep)
    return sweep


def _say_done_before(sweep: SweepDir, placement: Placement) -> None:
    used = sweep.meta()["call"].get("cluster")
    start_over = f"to run it again from the start on profile {placement.name}: {hints.again('--fresh')}"
    print(f"{sweep.path}: done before{f', on profile {used}' if used else ''}; {start_over}", flush=True)


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
