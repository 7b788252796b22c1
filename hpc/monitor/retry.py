"""Run failed runs again: choose them, reset their budgets, and submit them."""

from __future__ import annotations

import time
from collections.abc import Sequence

from hpc.pipeline.names import resolve_stage_name
from hpc.recovery.reconcile import RunsByState, classify_runs, last_cause, reset_budgets
from hpc.submission.execute import execute
from hpc.submission.outcome import refuse_unfinished, show_outcome
from hpc.submission.placement import place, remember_profile
from hpc.submission.prepare import choose_code
from hpc.submission.site import ask_site
from hpc.submission.submissions import in_queue
from hpc.submission.trust import check_sweep
from hpc.works import work_of
from relay import hints
from relay.config.messages import nearest
from relay.config.paths import paths_of
from relay.config.sections import Paths
from relay.errors import RunError
from relay.runs.causes import CAUSES
from relay.runs.names import find_named, print_names
from relay.runs.rundir import RunDir, SweepDir
from relay.text import counted


def retry(paths: Paths, name: str | None, cluster: str | None, cause: str | None, *, new_code: bool = False) -> None:
    """Reset the budgets of failed runs and submit them again.

    The runs are those of the sweep `name`, or the one run that it names; with `cause`, only those that failed for it.
    `cluster`: a profile, if not the sweep's own.
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
    if not chosen:
        return
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


def failed_runs(sweep: SweepDir, only: RunDir | None, cause: str | None, *, on_slurm: bool) -> list[RunDir]:
    """The failed runs of the sweep: all, or the run `only`, or those that failed for this cause.

    If nothing has failed, it says so. Raises RunError if nothing failed for the cause, or if the files of `only` are
    damaged.
    """
    by_state = classify_runs(sweep, in_queue(sweep) if on_slurm else {})
    if only in by_state.blocked and by_state.blocked[only].damaged:
        raise RunError(by_state.blocked[only].detail)
    failed = [run for run in by_state.failed() if only in (None, run)]
    chosen = [run for run in failed if cause is None or cause.upper() in _causes(by_state, run)]
    if not chosen:
        said = f"{only.label if only else sweep.name}: no failed run{_why_none(by_state, failed, cause)}"
        # Others failed: the user wants one of them, or their cause.
        if failed:
            raise RunError(said)
        print(said)
    return chosen


def _causes(by_state: RunsByState, run: RunDir) -> set[str | None]:
    """The causes that `--cause` may name: of the last attempt, and of the block, which may be NO_PROGRESS."""
    blocked = by_state.blocked.get(run)
    return {last_cause(run), blocked.cause if blocked else None}


def _why_none(by_state: RunsByState, failed: Sequence[RunDir], cause: str | None) -> str:
    """The end of the message: the causes that there are, or the states of the runs that have not failed."""
    if cause:
        causes = ", ".join(sorted({str(last_cause(run)) for run in failed})) or "none"
        meant = "" if cause.upper() in CAUSES else nearest(cause.upper(), CAUSES)
        return f" with --cause {cause}{meant}; causes in this sweep: {causes}"
    others = {
        "done": by_state.done,
        "in the queue": by_state.queued,
        "executed by processes outside SLURM": by_state.running_elsewhere,
    }
    counts = [f"{len(runs)} {state}" for state, runs in others.items() if runs]
    if by_state.to_submit or by_state.cancelled:
        counts.append(f"{len(by_state.to_submit) + len(by_state.cancelled)} not submitted; to submit: {hints.again()}")
    return f"; {', '.join(counts)}"
