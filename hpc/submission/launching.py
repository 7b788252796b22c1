"""Launch runs: plan them, then print the plan (a dry run) or execute it."""

from __future__ import annotations

from hpc.submission.dry_run import print_plan
from hpc.submission.execute import execute
from hpc.submission.forecast import forecast_of, refuse_above, unfinished_cells, warn_of_memory, warn_of_short_lead
from hpc.submission.here import execute_here
from hpc.submission.outcome import refuse_unfinished, show_outcome
from hpc.submission.placement import Placement, place, remember_profile
from hpc.submission.prepare import choose_code, prepare_sweep, say_other_metric
from hpc.submission.site import ask_site, check_job_folder
from hpc.submission.trust import check_sweep
from hpc.works import work_of
from relay import hints
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
        print(f"{sweep.path}: {describe_progress(sweep, new=new)}; {where}", flush=True)
        if new and work.reuses and len(undone) < len(sweep.runs()):
            print(f"to execute in full: {counted(len(undone), 'run')}: {shortlist(undone)}", flush=True)
        print(forecast, flush=True)
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
