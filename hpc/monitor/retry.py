"""Run failed runs again: reset their budgets and submit them."""

from __future__ import annotations

import time

from hpc.monitor.failed_runs import failed_runs
from hpc.pipeline.names import resolve_stage_name
from hpc.recovery.reconcile import reset_budgets
from hpc.submission.execute import execute
from hpc.submission.outcome import refuse_unfinished, show_outcome
from hpc.submission.placement import place, remember_profile
from hpc.submission.prepare import choose_code
from hpc.submission.site import ask_site
from hpc.submission.trust import check_sweep
from hpc.works import work_of
from relay import hints
from relay.config.paths import paths_of
from relay.config.sections import Paths
from relay.runs.names import find_named, print_names
from relay.runs.rundir import RunDir, SweepDir
from relay.text import counted


def retry(paths: Paths, name: str | None, cluster: str | None, cause: str | None, *, new_code: bool = False) -> None:
    """Reset the budgets of failed runs and submit them again.

    The runs are those of the sweep `name`, or the one run that it names; with `cause`, only those that failed for it.
    `cluster`: a profile, if not the sweep's own. Raises RunError if there are no such runs.
    """
    sweep, run = find_named(paths.runs, resolve_stage_name(paths.runs, name))
    check_sweep(sweep)  # Before the hints, which should name this command.
    with hints.acting_for(sweep.meta()):
        _retry(paths, sweep, run, cluster, cause, new_code=new_code)


def _retry(
    paths: Paths, sweep: SweepDir, only: RunDir | None, cluster: str | None, cause: str | None, *, new_code: bool
) -> None:
    # The sweep itself says where its logs and tables go; the user's file may have changed since.
    own_paths = paths_of(sweep.meta()["config"], sweep.meta_file)
    placement = place(paths.runs, cluster, sweep.meta(), sweep.meta()["inputs"])
    # Before anything is written: a site that refuses must leave the budgets as they are.
    site = None if placement.profile.executor == "local" else ask_site(placement.name, placement.profile)
    chosen = failed_runs(sweep, only, cause, on_slurm=site is not None)
    # Before the budgets are reset: a sweep whose code cannot be started must keep them.
    choose_code(sweep, work_of(sweep.kind, sweep.path).deciding, new_code=new_code)
    remember_profile(sweep, placement.name)
    reset_budgets(chosen, round(time.time(), 3))
    print(
        f"{sweep.path}: budgets reset for {counted(len(chosen), 'failed run')}, on profile {placement.name}:",
        flush=True,
    )
    print_names(chosen)
    execute(sweep, placement.profile, site, own_paths, [run.name for run in chosen])
    if site is None:
        show_outcome(sweep, own_paths)
        refuse_unfinished(sweep)
