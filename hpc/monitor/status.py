"""The status command: a table of runs or stages, printed once or refreshed while something is queued or running.

What happened to a sweep comes from its run directories, one question to SLURM, and the logs of its tasks.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Collection, Sequence
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING

from hpc import slurm
from hpc.monitor.logs import last_line
from hpc.monitor.status_rows import FINISHED, RunStatus, SweepStatus, sweep_status
from hpc.pipeline.names import find_pipeline, list_other_names, resolve_stage_name
from hpc.pipeline.overview import watch_pipeline
from hpc.submission.forecast import hours_left
from hpc.submission.profile import load_profile
from hpc.submission.submissions import last_tasks, queues_of, submissions
from relay import hints
from relay.config.sections import Paths
from relay.errors import ClusterError, RelayError
from relay.log import log
from relay.runs.attempt import Attempts, last_attempt
from relay.runs.causes import REQUEUED_AFTER
from relay.runs.names import find_named
from relay.runs.rundir import SweepDir
from relay.terminal import print_rows, table_console, table_of
from relay.text import printable

if TYPE_CHECKING:
    from rich.console import Console, Group

_NO_LOG = "no log: the task was cancelled before it started, or its log folder was moved, deleted or full"

_MAX_WATCHED_ROWS = 40


def show_status(paths: Paths, name: str | None, watch_s: float | None = None) -> None:
    """Print the runs of the sweep, the run or the stages of the pipeline `name`; the newest if there is no name.

    With `watch_s`, refresh after so many seconds until nothing is queued or running, or Ctrl-C.
    """
    runs_dir = paths.runs
    pipeline = find_pipeline(runs_dir, name)
    if pipeline:
        watch_pipeline(pipeline, watch_s)
        shown = pipeline.name
    else:
        sweep, run = find_named(runs_dir, resolve_stage_name(runs_dir, name), newest=True)
        with hints.acting_for(sweep.meta()):
            _show_sweep(sweep, run.name if run else None, watch_s)
        shown = sweep.name
    if name is None:
        list_other_names(runs_dir, shown)


def _show_sweep(sweep: SweepDir, only: str | None, watch_s: float | None) -> None:
    console, width = table_console()
    if watch_s is None or not console.is_terminal:
        _print_sweep(sweep, only, watch_s)
        return
    from rich.live import Live

    with Live(console=console, auto_refresh=False) as live, contextlib.suppress(KeyboardInterrupt):
        while True:
            status = query_status(sweep, only)
            live.update(_page(status, _title_now(sweep), console, width), refresh=True)
            if not status.in_flight:
                break
            time.sleep(watch_s)


def _print_sweep(sweep: SweepDir, only: str | None, watch_s: float | None) -> None:
    """Print the table once; with `watch_s`, print page after page, for a pipe or a file."""
    with contextlib.suppress(KeyboardInterrupt):
        while True:
            status = query_status(sweep, only)
            print_rows([row.columns() for row in status.rows], sweep.name if watch_s is None else _title_now(sweep))
            print(status.summary(), flush=True)
            if watch_s is None or not status.in_flight:
                break
            time.sleep(watch_s)


def _title_now(sweep: SweepDir) -> str:
    return f"{sweep.name}, {datetime.now():%H:%M:%S}"


def _page(status: SweepStatus, title: str, console: Console, width: int | None) -> Group:
    """The table and the summary, cut to one screen. Finished runs come last, so they are cut first."""
    from rich.console import Group
    from rich.text import Text

    rows = [row.columns() for row in sorted(status.rows, key=lambda row: row.state in FINISHED)]
    # Text: rich would read the brackets of an error message as markup.
    summary = Text(printable(status.summary()))
    # A row may wrap over several lines, so the page is rendered to learn its height.
    for count in range(min(len(rows), _MAX_WATCHED_ROWS), 0, -1):
        more = [Text(f"({len(rows) - count} more)")] if count < len(rows) else []
        page = Group(table_of(rows[:count], title, width), *more, summary)
        # One line stays free: the cursor would scroll the page.
        if len(console.render_lines(page, pad=False)) < console.height:
            return page
    return Group(summary)


def query_status(sweep: SweepDir, only: str | None = None) -> SweepStatus:
    """The status of all runs of the sweep, or of the run `only`. If SLURM does not answer, from disk alone."""
    try:
        queues, known = queues_of([sweep])
    except ClusterError as error:
        log.warning(f"SLURM did not answer; the status below is from disk alone: {error}")
        return sweep_status(sweep, {}, only)
    queue = queues[sweep.path]
    status = sweep_status(sweep, queue, only)
    # squeue still shows a cancelled job for MinJobAge (300 s by default, slurm.conf(5)).
    cancelled = {job.job_id for job in known if job.state == "CANCELLED"}
    rows = _explain_unstarted(status.rows, sweep, queue, cancelled)
    return replace(status, rows=rows, hours_left=_hours_left(sweep, status))


def _hours_left(sweep: SweepDir, status: SweepStatus) -> float | None:
    """From the forecast of what is queued or running, under the profile to which it was submitted."""
    cluster = sweep.meta()["call"].get("cluster")
    if not status.left or not cluster:
        return None
    try:
        _, profile = load_profile(cluster)
        return hours_left(sweep, status.left, profile)
    except RelayError as error:
        log.debug(f"when {sweep.name} will be done is not known: {error}")
        return None


def _own_cluster() -> str:
    try:
        return slurm.site_settings().cluster
    except ClusterError:
        return ""


def _explain_unstarted(
    rows: Sequence[RunStatus], sweep: SweepDir, queue: slurm.Queue, cancelled: Collection[str]
) -> list[RunStatus]:
    """The rows, where a run whose newest task left the queue before it started an attempt is `cancelled` or
    `not started`.

    Such a task leaves nothing in the run directory, so the error shown is the last line of its log.
    """
    known = submissions(sweep)
    tasks, clusters = last_tasks(known), {name: each.cluster for each in known for runs in each.tasks for name in runs}
    here = _own_cluster() if any(clusters.values()) else ""
    explained = []
    for row in rows:
        shown, name = row, row.run
        if name in tasks and name not in queue and row.state not in (*FINISHED, "running", "cancelled", "damaged"):
            task, submitted = tasks[name]
            if here and clusters[name] not in ("", here):
                error = f"submitted to the cluster {clusters[name]}; the queue of {here} does not show it"
                shown = replace(row, state=f"on {clusters[name]}", job=task, error=error)
            elif not _has_started(task, submitted, sweep.run(name).attempts()):
                error = last_line(sweep, task) or row.error or _NO_LOG
                state = "cancelled" if task in cancelled else "not started"
                shown = replace(row, state=state, job=task, error=error)
        explained.append(shown)
    return explained


def _has_started(task: str, submitted: float, attempts: Attempts) -> bool:
    """Whether the newest execution of a task, submitted at `submitted` (seconds since 1970), started an attempt."""
    last = last_attempt(attempts)
    if last is None:
        return False
    if last.job == task and last.on_slurm and last.cause in REQUEUED_AFTER:
        # A requeued task keeps its id, so this attempt is of the execution before. With an error, it is of the newest
        # one: SLURM has refused the requeue.
        return bool(last.error)
    # An attempt without SLURM, on this machine, came after the task. This machine's clock timed both.
    return any(attempt.job == task for attempt in attempts) or (not last.on_slurm and last.start > submitted)
