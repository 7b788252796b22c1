"""Looking at runs and stopping them: status, logs, cancel."""

from __future__ import annotations

import contextlib
import getpass
import os
import signal
import socket
import sys
import time
from collections.abc import Collection, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hpc import slurm, states
from hpc.chain import chains
from hpc.status import FINISHED, SweepStatus, sweep_status
from src.budgets import REQUEUED_AFTER
from src.config import Config
from src.errors import ClusterError, RunError
from src.names import find_named
from src.rundir import RunDir, SweepDir
from src.sweeps import sweeps, with_whole_manifests
from src.tables import counted, print_rows, table_console, table_of

if TYPE_CHECKING:
    from rich.console import Console, Group

_WATCHED_ROWS = 40
_NAMES_SHOWN = 20
_ERROR_CHARACTERS = 160
_NO_LOG = "no log: the runs were moved or deleted, or their disk was full, when the task started"


def show_in_logs(config: Config, folder: Path) -> None:
    """Make the jobs in `folder` of a sweep seen as logs/<sweep>. Only a view: jobs need the folder, not the link."""
    link, target = Path(config.paths.logs_dir).absolute() / folder.parent.name, folder.resolve()
    try:
        if link.is_symlink() and link.resolve() != target:
            link.unlink()  # From before a move.
        if not os.path.lexists(link):  # It may be the folder in which an earlier version kept the logs.
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(os.path.relpath(target, link.parent.resolve()))
    except FileExistsError:
        return
    except OSError as error:
        print(f"{link}: cannot be made ({error.strerror}); the logs are in {folder}", file=sys.stderr, flush=True)


def _log_file(config: Config, sweep: SweepDir, task: str, suffix: str) -> Path | None:
    """What a task printed; of an earlier version, the file lies in the folder of logs itself."""
    folders = (sweep.jobs, Path(config.paths.logs_dir) / sweep.name)
    found = (folder.absolute() / f"{task}_0_log.{suffix}" for folder in folders)
    return next((path for path in found if path.is_file()), None)


def _queue_of(made: Sequence[SweepDir]) -> tuple[dict[Path, slurm.Queue], list[slurm.QueuedJob]]:
    """Sweep path -> run name -> queued tasks, and all that SLURM knows; one question, none without submissions."""
    from hpc.submit import match_queue, submissions

    by_sweep = {sweep.path: submissions(sweep) for sweep in made}
    names = [submission.job_name for subs in by_sweep.values() for submission in subs]
    known = slurm.queued(names)
    return {path: match_queue(subs, known) for path, subs in by_sweep.items()}, known


def show_status(config: Config, name: str | None, watch_s: float | None = None) -> None:
    """A table of the runs, from disk and one question to the scheduler; `watch_s` shows it again after so many seconds,
    until nothing is on its way or Ctrl-C.
    """
    sweep, run = find_named(Path(config.paths.runs_dir), name)
    only = run.name if run else None
    if watch_s is None:
        found = _standing(config, sweep, only)
        print_rows(found.rows, sweep.name)
        print(found.summary())
        return
    from rich.live import Live

    console, width = table_console()
    with Live(console=console, auto_refresh=False) as live, contextlib.suppress(KeyboardInterrupt):
        while True:
            found = _standing(config, sweep, only)
            title = f"{sweep.name}, {datetime.now():%H:%M:%S}"
            height = None if width is None else console.height
            live.update(_page(found, title, console, width, height), refresh=True)
            if not found.in_flight:
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
        queues, known = _queue_of([sweep])
    except ClusterError as error:
        print(f"the scheduler could not be asked, what follows is from disk alone: {error}", file=sys.stderr)
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
    from hpc.submit import last_tasks, submissions

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
                "error": _last_words(config, sweep, task) or row["error"] or _NO_LOG,
            }


def _last_words(config: Config, sweep: SweepDir, task: str) -> str | None:
    for path in (_log_file(config, sweep, task, suffix) for suffix in ("err", "out")):
        lines = path.read_text(errors="replace").split("\n") if path else []
        said = [line.strip() for line in lines if line.strip()]
        if said:
            return said[-1][:_ERROR_CHARACTERS]
    return None


def cancel_runs(config: Config, name: str) -> None:
    """Stop what waits or runs of a run, a sweep, or everything; nothing but a command of the user's starts it again."""
    if name.isdigit():
        raise RunError(f"cancel {name}: give a sweep, a run or all; a job by its number: scancel {name}")
    runs_dir = Path(config.paths.runs_dir)
    everything = name == "all"
    chosen = (
        [(sweep, None) for sweep in with_whole_manifests(sweeps(runs_dir))]
        if everything
        else [find_named(runs_dir, name)]
    )
    runs = [run for sweep, only in chosen for run in ([only] if only else sweep.runs()) if not run.is_done()]
    # Before the question what is in the queue: what goes on by itself must not submit it again in between.
    for run in runs:
        run.cancel()
    queues, _ = _queue_of([sweep for sweep, _ in chosen])
    tasks = {run: queues[run.path.parent].get(run.name, ()) for run in runs}
    ids = list(dict.fromkeys(job.job_id for jobs in tasks.values() for job in jobs))
    ids += _jobs_of_chains(runs_dir) if everything else []
    slurm.cancel(ids)
    told = [run for run, jobs in tasks.items() if not jobs and _stop_local(run)]
    stopped = [*(run for run, jobs in tasks.items() if jobs), *told]
    labels = [only.label if only else sweep.name for sweep, only in chosen]
    where = labels[0] if len(labels) == 1 else counted(len(labels), "sweep")
    number = len(ids) + len(told)
    print(f"{where}: " + (f"cancelled {counted(number, 'task')}" if number else "nothing of it waits or runs"))
    print_names(stopped)
    reached = set(stopped)
    held = [run for run in runs if run not in reached]
    if held:
        print("not in the queue, and not started before you submit them again:")
        print_names(held)
    beside = [
        f"{sweep.name}/{other}"
        for sweep, only in chosen
        for other, jobs in queues[sweep.path].items()
        if only and other != only.name and any(job.job_id in ids for job in jobs)
    ]
    if beside:
        print(f"one task executes several runs, these stop with it: {', '.join(beside)}")


def print_names(runs: Sequence[RunDir]) -> None:
    """A line for each run, so that whoever stops or retries runs sees which."""
    for run in runs[:_NAMES_SHOWN]:
        print(f"  {run.label}")
    if len(runs) > _NAMES_SHOWN:
        print(f"  and {len(runs) - _NAMES_SHOWN} more")


def _jobs_of_chains(runs_dir: Path) -> list[str]:
    """The jobs that go on with pipelines; first of all, so that they submit nothing more."""
    names = [name for chain in chains(runs_dir.absolute()) for name in chain.job_names()]
    return [job.job_id for job in slurm.queued(names) if states.in_flight(job.state)]


def _stop_local(run: RunDir) -> bool:
    """Tell a worker of this machine to save and end; True where there was one."""
    try:
        attempts = run.attempts()
    except RunError as error:
        print(f"it is not known whether a process executes it: {error}", file=sys.stderr)
        return False
    if not attempts or "end" in attempts[-1] or not run.alive():
        return False
    if attempts[-1].get("node") != socket.gethostname():
        return False
    try:
        os.kill(attempts[-1]["pid"], signal.SIGTERM)
    except (KeyError, ProcessLookupError, PermissionError):
        print(f"{run.label}: process {attempts[-1].get('pid')} of {getpass.getuser()} cannot be told", file=sys.stderr)
        return False
    return True


def show_logs(config: Config, name: str | None, *, follow: bool) -> None:
    """Print the log files of all jobs of a run (of a sweep's only run, where it has one); `follow` goes on.

    Of each job what it said on stdout, then what on stderr, each below its file's name, as tail(1) does.
    """
    sweep, run = find_named(Path(config.paths.runs_dir), name)
    runs = sweep.runs()
    chosen = run or (runs[0] if len(runs) == 1 else None)
    if chosen is None:
        raise RunError(f"{sweep.name}: has {len(runs)} runs; name one, for example: logs {runs[0].label}")
    seen: dict[Path, int] = {}
    shown: Path | None = None
    while True:
        for path in _log_files(config, sweep, chosen):
            with path.open("rb") as file:
                file.seek(seen.get(path, 0))
                text = file.read().decode(errors="replace")
                seen[path] = file.tell()
            if text and path != shown:
                print(f"{'' if shown is None else chr(10)}==> {path} <==")
                shown = path
            sys.stdout.write(text)
        sys.stdout.flush()
        if not follow or _is_over(chosen):
            break
        time.sleep(1)
    if not seen:
        raise RunError(
            f"{chosen.label}: no job of it has started yet; python -m hpc.launch status {sweep.name} shows why"
        )


def _is_over(run: RunDir) -> bool:
    """Done, or ended by something after which it does not go on by itself."""
    attempts = run.attempts()
    ended = attempts[-1].get("cause") if attempts else None
    return run.is_done() or (ended is not None and ended not in REQUEUED_AFTER)


def _log_files(config: Config, sweep: SweepDir, run: RunDir) -> list[Path]:
    """Of the tasks that were submitted for the run, also of one that died before it began, and of its attempts."""
    from hpc.submit import submissions

    ids = [
        made.task_id(position)
        for made in submissions(sweep)
        for position, names in enumerate(made.tasks)
        if made.job_id and run.name in names
    ]
    ids = list(dict.fromkeys([*ids, *(str(a["job"]) for a in run.attempts() if a.get("job"))]))
    found = (_log_file(config, sweep, job, suffix) for job in ids for suffix in ("out", "err"))
    return [path for path in found if path]
