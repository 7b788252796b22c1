"""Prepare a sweep for its launch: bring its data here, make its directories, choose its code."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from relay import hints
from relay.log import log, say
from relay.runs.code_snapshot import code_change, code_digest, new_code_hint, sweep_code, use_new_code
from relay.runs.project_snapshot import ProjectFiles, keep_project, project_change
from relay.runs.reuse import reuse_finished
from relay.runs.rundir import SweepDir
from relay.runs.sweeps import Request, open_sweep
from relay.work import Work


def prepare_inputs(request: Request, *, fresh: bool = False) -> Request:
    """The request with the digest of each cell's data, which is brought to this machine.

    With `fresh`, the content of files is compared with what was prepared before, and not only their sizes and times.
    Raises DataError if the data cannot be had.
    """
    return replace(request, data=request.prepare(fresh))


def prepare_sweep(work: Work, request: Request, *, fresh: bool) -> tuple[SweepDir, bool]:
    """The sweep of a request: the existing one, or a new one. True if it is new.

    Raises DataError if its data has changed since it was planned.
    """
    # Read the code before the data, which may take minutes: what is edited meanwhile is not what was asked for.
    code_digest()
    sweep, new = open_sweep(prepare_inputs(request, fresh=fresh), fresh=fresh)
    # Not when it is continued: it may have been started with --fresh.
    if new and work.reuses and not fresh:
        reuse_finished(sweep, request.why_other)
    request.opened(sweep)
    return sweep, new


def say_other_metric(sweep: SweepDir, request: Request) -> None:
    """Warn if the sweep is ranked by another metric than the request asks for: its runs have kept their best by it."""
    planned, now = sweep.meta()["select"], request.select
    if (planned["column"], planned["direction"]) != (now.column, now.direction):
        log.warning(
            f"{sweep.name} was planned with metrics.select {planned['column']} ({planned['direction']}), and keeps it; "
            f"to start over with {now.column} ({now.direction}): {hints.again('--fresh')}"
        )


def choose_code(
    sweep: SweepDir,
    deciding: Sequence[str],
    project: ProjectFiles | None = None,
    *,
    new_code: bool,
    root: Path | None = None,
) -> None:
    """Continue a sweep with the code it was made with, or with the current code if `new_code`; print which.

    `deciding`: how the paths of the code begin that can change results. `project`: the user's, for runs of programs.
    `root`: the code to compare with, if not that of this process. Raises RunError if its snapshot is missing or was
    changed.
    """
    changes = [code_change(sweep, deciding, root)]
    if project:
        changes.append(project_change(sweep.project / sweep.meta()["project"], project))
    change = "; ".join(filter(None, changes))
    if not (change or new_code):
        return
    # Results of two versions of the code should not be mixed in one table, so the code of a finished sweep stays too.
    if all(run.is_done() for run in sweep.runs()):
        if change:
            print(
                f"{sweep.path}: done before, with other code: {change}; "
                f"to run it again from the start: {hints.again('--fresh')}",
                flush=True,
            )
    elif new_code:
        own = {"project": keep_project(sweep.project, project).name} if project else {}
        say(f"continues with the current code, snapshot {use_new_code(sweep, **own).name}")
    else:
        sweep_code(sweep)
        say(f"continues with the code it was made with; {change}; {new_code_hint()}")


def code_to_use(sweep: SweepDir, *, new_code: bool) -> Path:
    """The snapshot that a launch would use for the sweep; neither of them has to exist yet."""
    keeps = sweep.meta_file.is_file() and not new_code
    return (sweep.code / (sweep.meta()["snapshot"] if keeps else code_digest())).absolute()
