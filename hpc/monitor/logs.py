"""What the jobs of a run printed: shown, followed, and kept in view below logs/."""

from __future__ import annotations

import sys
import time
from pathlib import Path

from hpc.pipeline.names import find_pipeline, resolve_stage_name
from hpc.pipeline.overview import show_pipeline_log
from src import hints
from src.config.schema import Config
from src.errors import RunError
from src.runs.causes import REQUEUED_AFTER
from src.runs.names import find_named
from src.runs.rundir import RunDir, SweepDir

_ERROR_CHARACTERS = 160


def show_logs(config: Config, name: str | None, *, follow: bool) -> None:
    """Print the log files of all jobs of a run (of a sweep's only run, where it has one); `follow` goes on.

    Of each job what it said on stdout, then what on stderr, each below its file's name, as tail(1) does.
    """
    runs_dir = Path(config.paths.runs_dir)
    pipeline = find_pipeline(runs_dir, name) if name else None
    if pipeline:
        show_pipeline_log(config, pipeline)
        return
    sweep, run = find_named(runs_dir, resolve_stage_name(runs_dir, name))
    runs = sweep.runs()
    chosen = run or (runs[0] if len(runs) == 1 else None)
    if chosen is None:
        example = hints.command("hpc.launch", "logs", runs[0].label)
        raise RunError(f"{sweep.name}: has {len(runs)} runs; name one, for example: {example}")
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
        why = hints.command("hpc.launch", "status", sweep.name)
        raise RunError(f"{chosen.label}: no job of it has started yet; to see why: {why}")


def _is_over(run: RunDir) -> bool:
    """Done, or ended by something after which it does not go on by itself."""
    attempts = run.attempts()
    ended = attempts[-1].get("cause") if attempts else None
    return run.is_done() or (ended is not None and ended not in REQUEUED_AFTER)


def _log_files(config: Config, sweep: SweepDir, run: RunDir) -> list[Path]:
    """Of the tasks that were submitted for the run, also of one that died before it began, and of its attempts."""
    from hpc.submission.submissions import submissions

    ids = [
        made.task_id(position)
        for made in submissions(sweep)
        for position, names in enumerate(made.tasks)
        if made.job_id and run.name in names
    ]
    ids = list(dict.fromkeys([*ids, *(str(a["job"]) for a in run.attempts() if a.get("job"))]))
    found = (_log_file(config, sweep, job, suffix) for job in ids for suffix in ("out", "err"))
    return [path for path in found if path]


def _log_file(config: Config, sweep: SweepDir, task: str, suffix: str) -> Path | None:
    """What a task printed; of an earlier version, the file lies in the folder of logs itself."""
    folders = (sweep.jobs, Path(config.paths.logs_dir) / sweep.name)
    found = (folder.absolute() / f"{task}_0_log.{suffix}" for folder in folders)
    return next((path for path in found if path.is_file()), None)


def last_line(config: Config, sweep: SweepDir, task: str) -> str | None:
    """The last line that a task printed, of its errors if there are any; None if it printed nothing."""
    for path in (_log_file(config, sweep, task, suffix) for suffix in ("err", "out")):
        lines = path.read_text(errors="replace").split("\n") if path else []
        said = [line.strip() for line in lines if line.strip()]
        if said:
            return said[-1][:_ERROR_CHARACTERS]
    return None
