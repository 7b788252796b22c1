"""Launching: plan the runs that are asked for, print the plan, or bring it to this machine or to SLURM."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import jobs
from hpc.submission.arrays import ask_site, submit_missing
from hpc.submission.code_choice import choose_code
from hpc.submission.dry_run import print_plan, runs_of
from hpc.submission.forecast import forecast_of, refuse_above, warn_of_short_lead
from hpc.submission.plan import SiteLimits, check_job_folder
from hpc.submission.profile import Profile, profile_of, remember_profile
from src import hints
from src.config.schema import Config
from src.runner import prepare_images
from src.runs.rundir import SweepDir
from src.runs.sweeps import find_sweep, open_sweep
from src.text import counted


def launch(
    kind: str,
    config: Config,
    cluster: str | None,
    *,
    dry_run: bool = False,
    fresh: bool = False,
    new_code: bool = False,
    max_slice_hours: float | None = None,
    **options: Any,
) -> SweepDir | None:
    """Plan the runs that are asked for, and submit those that are neither done nor in flight. Returns their sweep."""
    request = jobs.request_of(kind, config, **options)
    found = None if fresh else find_sweep(request.runs_dir, request.kind, request.key)
    profile_name, profile = profile_of(found, cluster)
    left = [cell for cell, run in zip(request.cells, runs_of(request, found), strict=True) if not run.is_done()]
    forecast = forecast_of(request, left, profile)
    check_job_folder(request.runs_dir)
    if dry_run:
        print_plan(request, found, profile_name, profile, new_code=new_code)
        if left:
            print(forecast)
            warn_of_short_lead(profile, forecast)
            refuse_above(max_slice_hours, forecast)
        return None
    refuse_above(max_slice_hours, forecast)
    warn_of_short_lead(profile, forecast)
    # Only here: it may read a checkpoint with torch, and a dry run must stay light.
    jobs.check(request)
    site = None if profile.executor == "local" else ask_site(profile_name, profile)
    request = prepare_images(request)
    sweep, new = open_sweep(request, fresh=fresh)
    if not new:
        choose_code(sweep, new_code=new_code)
    done = 0 if new else sum(run.is_done() for run in sweep.runs())
    count = len(request.cells)
    if done < count:
        word = f"new, {counted(count, 'run')}" if new else f"continued, {done} of {count} runs are done"
        print(f"{sweep.path}: {word}; profile {profile_name}", flush=True)
        print(forecast, flush=True)
        remember_profile(sweep, profile_name)
    else:
        _say_done(sweep, profile_name)
    execute(sweep, profile, site, config)
    return sweep


def _say_done(sweep: SweepDir, profile_name: str) -> None:
    where = sweep.meta().get("profile")
    anew = f"to run it again from the start on profile {profile_name}: {hints.again('--fresh')}"
    print(f"{sweep.path}: done before{f', on profile {where}' if where else ''}; {anew}", flush=True)


def execute(
    sweep: SweepDir,
    profile: Profile,
    site: SiteLimits | None,
    config: Config,
    only: Collection[str] | None = None,
    *,
    by_user: bool = True,
) -> None:
    """Bring what is missing of a sweep (of the runs `only`) to this machine, where there is no site, or to SLURM.

    What its user has cancelled is left alone unless this is a command `by_user`.
    """
    if site is None:
        from hpc.submission.local_pool import run_here

        run_here(sweep, profile, config, only)
    else:
        submit_missing(sweep, profile, site, config, only, by_user=by_user)
