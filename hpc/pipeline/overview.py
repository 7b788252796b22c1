"""Looking at a pipeline and stopping it: which names mean one, what its stages came to, and what continues it."""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hpc import slurm
from hpc.pipeline.directory import STAGES, Pipeline, all_pipelines
from hpc.submission.submit import in_queue, submissions
from src import hints
from src.config.schema import Config
from src.errors import ClusterError, RunError
from src.log import log
from src.results.terminal import print_rows
from src.runs.planning_lock import is_folder_locked
from src.runs.rundir import SweepDir
from src.runs.sweeps import sweeps
from src.text import shortlist


def find_pipeline(runs_dir: Path, name: str | None) -> Pipeline | None:
    """The pipeline that `name` means: its name or path, or the only one that has it as a part; without a name, the
    newest one, where nothing else was asked for since. None if it is no pipeline's name.
    """
    made = all_pipelines(runs_dir)
    if name is None:
        return _newest(runs_dir, made)
    wanted = name.strip("/").rpartition("/")[2] if Path(name).is_dir() else name.strip("/")
    exact = [pipeline for pipeline in made if pipeline.name == wanted]
    # A part that every pipeline has as well as sweeps, such as a date, means a sweep or nothing.
    found = exact or [pipeline for pipeline in made if wanted.startswith("pipeline") and wanted in pipeline.name]
    if len(found) > 1:
        shown = ", ".join(pipeline.name for pipeline in found)
        raise RunError(f"{name!r}: {len(found)} pipelines have that in their name: {shown}; give one of them in full")
    return found[0] if found else None


def _newest(runs_dir: Path, made: Sequence[Pipeline]) -> Pipeline | None:
    known = sweeps(runs_dir)
    if not made:
        return None
    stages = {str(line.get("sweep")) for line in made[-1].standing().values()}
    newer = [s for s in known if s.name not in stages and str(s.meta()["created"]) > str(made[-1].meta()["created"])]
    return None if newer else made[-1]


def resolve_stage_name(runs_dir: Path, name: str | None) -> str | None:
    """`<pipeline>/<stage>` and `<pipeline>/<stage>/<run>` as the sweep's and the run's name, a pipeline as the sweep of
    the stage that it has come to; other names as they are.

    Raises RunError if the stage is unknown, or has no sweep yet.
    """
    first, _, rest = (name or "").partition("/")
    pipeline = find_pipeline(runs_dir, first) if name else None
    if pipeline is None:
        return name
    if not rest and stage_sweeps(pipeline):
        return stage_sweeps(pipeline)[-1].name
    given, _, run = rest.partition("/")
    stage = given.replace("-", "_")
    if stage not in STAGES:
        raise RunError(f"{name}: {pipeline.name} has no stage {given}; its stages: {', '.join(STAGES)}")
    sweep = pipeline.standing().get(stage, {}).get("sweep")
    if not sweep:
        status = hints.command("hpc.launch", "status", pipeline.name)
        raise RunError(f"{name}: this stage is not planned yet; to see how the pipeline stands: {status}")
    return f"{sweep}/{run}" if run else str(sweep)


def show_pipeline(pipeline: Pipeline) -> bool:
    """A table of the stages: their sweeps, jobs and runs, and what each found; then what continues the pipeline.

    False if nothing of it is on its way.
    """
    hints.use(pipeline.meta())
    standing, waiting = pipeline.standing(), ""
    try:
        going_on = [job for job in slurm.squeue(pipeline.job_names()) if slurm.in_flight(job.state)]
        waiting = ", ".join(f"{job.job_id} {job.state} {job.reason}".strip() for job in going_on)
    except ClusterError as error:
        log.warning(f"the scheduler could not be asked, what follows is from disk alone: {error}")
    rows = [_row(pipeline, stage, standing.get(stage, {})) for stage in STAGES]
    print_rows(rows, pipeline.name)
    # On SLURM for as long as it submits, on this machine from its first stage to its last.
    at_work = is_folder_locked(pipeline.path)
    failed = [line for line in standing.values() if line["state"] == "failed"]
    if failed and not at_work:
        print(f"{pipeline.name} stops at {failed[-1]['link']}: {failed[-1].get('reason', '')}")
    elif standing.get(STAGES[-1], {}).get("state") == "done":
        print(f"{pipeline.name} is complete")
    elif waiting:
        print(f"job {waiting} continues it")
    elif at_work:
        print("a process continues it at this moment")
    else:
        print(f"nothing is in the queue that continues it; to continue: {hints.again()}")
    planned = [stage for stage in STAGES if standing.get(stage, {}).get("sweep")]
    if planned:
        print(f"the runs of a stage: {hints.command('hpc.launch', 'status', f'{pipeline.name}/{planned[-1]}')}")
    return bool(waiting) or at_work or any(row["jobs"] for row in rows)


def watch_pipeline(pipeline: Pipeline, every_s: float | None) -> None:
    """Show it; with `every_s`, again after so many seconds until nothing of it is on its way, or Ctrl-C."""
    with contextlib.suppress(KeyboardInterrupt):
        while show_pipeline(pipeline) and every_s:
            time.sleep(every_s)


def _row(pipeline: Pipeline, stage: str, line: Mapping[str, Any]) -> dict[str, Any]:
    sweep = SweepDir(pipeline.path.parent / str(line["sweep"])) if line.get("sweep") else None
    runs, jobs = sweep.runs() if sweep else [], ""
    if sweep and not all(run.is_done() for run in runs) and submissions(sweep):
        try:
            found = {job.job_id: job for jobs in in_queue(sweep).values() for job in jobs}
        except ClusterError:
            found = {}
        counts = Counter(job.state for job in found.values())
        ids = sorted({job.array_id for job in found.values()})
        jobs = " ".join(ids) + (": " if ids else "") + ", ".join(f"{count} {state}" for state, count in counts.items())
    done = sum(run.is_done() for run in runs)
    return {
        "stage": stage,
        "state": line.get("state", "waits"),
        "sweep": sweep.name if sweep else None,
        "runs done": f"{done}/{len(runs)}" if sweep else None,
        "jobs": jobs or None,
        "found": line.get("found"),
    }


def stage_sweeps(pipeline: Pipeline) -> list[SweepDir]:
    """Those of its stages that are planned, in order."""
    standing = pipeline.standing()
    found = [standing[stage]["sweep"] for stage in STAGES if standing.get(stage, {}).get("sweep")]
    return [SweepDir(pipeline.path.parent / str(name)) for name in found]


def cancel_stage_jobs(pipeline: Pipeline) -> list[str]:
    """Cancel the jobs that continue with the pipeline, so that they submit nothing more, and write that down for the
    stage that is not done. Returns the ids of the jobs.
    """
    ids = [job.job_id for job in slurm.squeue(pipeline.job_names()) if slurm.in_flight(job.state)]
    slurm.cancel(ids)
    standing = pipeline.standing()
    for line in [standing[stage] for stage in STAGES if standing.get(stage, {}).get("state", "done") != "done"][:1]:
        pipeline.record(**{**line, "state": "cancelled"})
    return ids


def list_other_names(runs_dir: Path, shown: str) -> None:
    """Where something was shown that nobody named: that it is the newest, and how to see another one."""
    of_pipelines = {sweep.name for pipeline in all_pipelines(runs_dir) for sweep in stage_sweeps(pipeline)}
    alone = [(str(sweep.meta()["created"]), sweep.name) for sweep in sweeps(runs_dir) if sweep.name not in of_pipelines]
    made = sorted([*alone, *((str(pipeline.meta()["created"]), pipeline.name) for pipeline in all_pipelines(runs_dir))])
    others = [name for _, name in reversed(made) if name != shown]
    if others:
        print(f"{shown} is the newest of {len(others) + 1}; the others: {shortlist(others)}")
        print(f"to see one of them: {hints.command('hpc.launch', 'status', others[0])}")


def show_pipeline_log(config: Config, pipeline: Pipeline) -> None:
    """What the jobs that continue with the pipeline have printed. Raises RunError if none has started yet."""
    folder = Path(config.paths.logs_dir).absolute() / pipeline.name
    files = sorted(folder.glob("*.out"), key=lambda path: path.stat().st_mtime)
    for path in files:
        print(f"=== {path}\n{path.read_text(errors='replace').rstrip()}")
    planned = [stage for stage in STAGES if pipeline.standing().get(stage, {}).get("sweep")]
    stage = hints.command("hpc.launch", "logs", f"{pipeline.name}/{planned[-1] if planned else STAGES[0]}")
    if not files:
        raise RunError(f"{pipeline.name}: no job that continues it has started yet; the log of a stage: {stage}")
    print(f"the log of a stage: {stage}")
