"""Looking at runs and stopping them: status and cancel."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Collection, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hpc import slurm
from hpc.monitor.logs import last_words
from hpc.monitor.status_rows import FINISHED, SweepStatus, sweep_status
from hpc.pipeline.names import find_pipeline, list_other_names, resolve_stage_name
from hpc.pipeline.overview import watch_pipeline
from hpc.submission.submissions import queues_of
from src import hints
from src.config.schema import Config
from src.errors import ClusterError
from src.log import log
from src.results.terminal import print_rows, table_console, table_of
from src.runs.causes import REQUEUED_AFTER
from src.runs.names import find_named
from src.runs.rundir import SweepDir

if TYPE_CHECKING:
    from rich.console import Console, Group

_WATCHED_ROWS = 40
_NO_LOG = "no log: the task was cancelled before it started, or its folder was moved, deleted or full"


def show_status(config: Config, name: str | None, watch_s: float | None = None) -> None:
    """A table of the runs, from disk and one question to the scheduler; `watch_s` shows it again after so many seconds,
    until nothing is on its way or Ctrl-C. Of a pipeline, its stages.
    """
    runs_dir = Path(config.paths.runs_dir)
    pipeline = find_pipeline(runs_dir, name)
    if pipeline:
        watch_pipeline(pipeline, watch_s)
        shown = pipeline.name
    else:
        sweep, run = find_named(runs_dir, resolve_stage_name(runs_dir, name))
        hints.use(sweep.meta())
        _show_sweep(config, sweep, run.name if run else None, watch_s)
        shown = sweep.name
    if name is None:
        list_other_names(runs_dir, shown)


def _show_sweep(config: Config, sweep: SweepDir, only: str | None, watch_s: float | None) -> None:
    console, width = table_console()
    if watch_s is None or not console.is_terminal:
        _print_sweep(config, sweep, only, watch_s)
        return
    from rich.live import Live

    with Live(console=console, auto_refresh=False) as live, contextlib.suppress(KeyboardInterrupt):
        while True:
            found = _standing(config, sweep, only)
            title = f"{sweep.name}, {datetime.now():%H:%M:%S}"
            height = None if width is None else console.height
            live.update(_page(found, title, console, width, height), refresh=True)
            if not found.in_flight:
                break
            time.sleep(watch_s)


def _print_sweep(config: Config, sweep: SweepDir, only: str | None, watch_s: float | None) -> None:
    """Once, or page after page into a pipe or a file, until nothing is on its way."""
    with contextlib.suppress(KeyboardInterrupt):
        while True:
            found = _standing(config, sweep, only)
            print_rows(found.rows, sweep.name if watch_s is None else f"{sweep.name}, {datetime.now():%H:%M:%S}")
            print(found.summary(), flush=True)
            if watch_s is None or not found.in_flight:
                break
            time.sleep(watch_s)


def _page(found: SweepStatus, title: str, console: Console, width: int | None, height: int | None) -> Group:
    """The table and the summary on one screen: what is over goes last, and out of sight first."""
    from rich.console import Group
    from rich.text import Text

    rows = sorted(found.rows, key=lambda row: row["state"] in FINISHED)
    # Text: rich would read the brackets of an error message as markup.
    summary = Text(found.summary())
    for count in range(min(len(rows), _WATCHED_ROWS), 0, -1):
        left = [Text(f"({len(rows) - count} more)")] if count < len(rows) else []
        page = Group(table_of(rows[:count], title, width), *left, summary)
        # A line stays free for the cursor, which would scroll the page.
        if height is None or len(console.render_lines(page, pad=False)) < height:
            return page
    return Group(summary)


def _standing(config: Config, sweep: SweepDir, only: str | None) -> SweepStatus:
    try:
        queues, known = queues_of([sweep])
    except ClusterError as error:
        log.warning(f"the scheduler could not be asked, what follows is from disk alone: {error}")
        return sweep_status(sweep, {}, only)
    queue = queues[sweep.path]
    found = sweep_status(sweep, queue, only)
    cancelled = {job.job_id for job in known if job.state == "CANCELLED"}
    _explain_unstarted(found.rows, sweep, queue, config, cancelled)
    return found


def _explain_unstarted(
    rows: Sequence[dict[str, Any]], sweep: SweepDir, queue: slurm.Queue, config: Config, cancelled: Collection[str]
) -> None:
    """Runs whose newest task has left the queue without beginning an attempt: what its log says in the end, or that
    it was cancelled, which SLURM knows for a while.
    """
    from hpc.submission.submissions import last_tasks, submissions

    tasks = last_tasks(submissions(sweep))
    for row in rows:
        if (
            row["run"] not in tasks
            or row["run"] in queue
            or row["state"] in (*FINISHED, "running", "cancelled", "damaged")
        ):
            continue
        (task, submitted), attempts = tasks[row["run"]], sweep.run(row["run"]).attempts()
        last = attempts[-1] if attempts else {}
        begun = any(attempt.get("job") == task for attempt in attempts)
        # Since then without SLURM, on this machine, whose clock has timed the submission too.
        begun |= not last.get("cluster") and last.get("start", 0) > submitted
        # A task that was to come back has the same number as before.
        to_come_back = last.get("job") == task and last.get("cause") in REQUEUED_AFTER and last.get("cluster")
        if not begun or to_come_back:
            row |= {
                "state": "cancelled" if task in cancelled else "not started",
                "job": task,
                "error": last_words(config, sweep, task) or row["error"] or _NO_LOG,
            }
