"""The status command: a table of runs or stages, printed once or refreshed while something is queued or running."""

from __future__ import annotations

import contextlib
import time
from datetime import datetime
from typing import TYPE_CHECKING

from hpc.monitor.status_query import query_status
from hpc.monitor.status_rows import FINISHED, SweepStatus
from hpc.pipeline.names import find_pipeline, list_other_names, resolve_stage_name
from hpc.pipeline.overview import watch_pipeline
from relay import hints
from relay.config.sections import Paths
from relay.runs.names import find_named
from relay.runs.rundir import SweepDir
from relay.terminal import print_rows, table_console, table_of
from relay.text import printable

if TYPE_CHECKING:
    from rich.console import Console, Group

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
        sweep, run = find_named(runs_dir, resolve_stage_name(runs_dir, name))
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
