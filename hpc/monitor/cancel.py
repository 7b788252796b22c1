"""The cancel command: stop the queued and running tasks of a run, a sweep, a pipeline, or all of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from hpc import slurm
from hpc.pipeline.directory import Pipeline, all_pipelines
from hpc.pipeline.names import find_pipeline, resolve_stage_name
from hpc.pipeline.stages import cancel_stage_jobs
from hpc.submission.plan import is_job_of
from hpc.submission.submissions import queues_of, submissions
from relay.config.sections import Paths
from relay.errors import RunError
from relay.files import read_json
from relay.log import log
from relay.runs import records
from relay.runs.names import find_named, print_names
from relay.runs.rundir import RunDir, SweepDir
from relay.runs.sweeps import sweeps, with_whole_manifests
from relay.text import counted

# A sweep, and one run of it; None for all its runs.
Selection = tuple[SweepDir, RunDir | None]


def cancel_runs(paths: Paths, name: str) -> None:
    """Stop all that is queued or running of a run, a sweep or a pipeline, or of `all`. Only its user starts it again.

    Raises RunError if the name is unknown or ambiguous, ClusterError if SLURM does not answer.
    """
    if name.isdigit():
        raise RunError(
            f"cancel {name}: give the name of a sweep or run, or all; to cancel a job by its id: scancel {name}"
        )
    runs_dir = paths.runs
    pipeline = None if name == "all" else find_pipeline(runs_dir, name)
    # Before its sweeps are listed: the job that continues a pipeline must not plan another sweep in between.
    stage_jobs = cancel_stage_jobs(pipeline) if pipeline else []
    selected = _select(runs_dir, name, pipeline)
    runs = [run for sweep, only in selected for run in ([only] if only else sweep.runs()) if not run.is_done()]
    cancelled_before = {run for run in runs if run.cancelled()}
    # On disk first, before squeue is asked: a task or pipeline that sees the mark does not submit the run again.
    for run in runs:
        run.cancel()
    queues, _ = queues_of([sweep for sweep, _ in selected])
    tasks = {run: _own_jobs(run, queues[run.path.parent]) for run in runs}
    others = _others_in_tasks(selected, queues)
    needed = {job.job_id for jobs in others.values() for job in jobs}
    # A task that has other runs to execute goes on without this one, which the task itself stops.
    ids = list(dict.fromkeys(job.job_id for jobs in tasks.values() for job in jobs if job.job_id not in needed))
    ids += _all_stage_jobs(runs_dir) if name == "all" else []
    slurm.cancel(ids)
    stopped = [run for run, jobs in tasks.items() if jobs]
    # Their own processes see the mark, on whatever host. No process id of a run directory is worth a signal: it may be
    # another process's by now.
    elsewhere = [run for run, jobs in tasks.items() if not jobs and run.alive()]
    ids = [*stage_jobs, *ids]
    reached = {*stopped, *elsewhere}
    not_queued = [run for run in runs if run not in reached and run not in cancelled_before]
    affected = {run.path.parent for run in (*reached, *not_queued)}
    if name == "all":
        what = counted(len(affected), "sweep")
    else:
        what = pipeline.name if pipeline else selected[0][1].label if selected[0][1] else selected[0][0].name
    marked = [run for run, jobs in tasks.items() if any(job.job_id in needed for job in jobs)]
    parts = [counted(len(ids), "task")] if ids else []
    parts += [f"{counted(len(marked), 'run')} of a task"] if marked else []
    parts += [f"{counted(len(elsewhere), 'run')} outside of the queue"] if elsewhere else []
    print(
        f"{what}: " + (f"cancelled {' and '.join(parts)}" if parts else f"nothing is queued or running in {runs_dir}")
    )
    print_names(stopped)
    if elsewhere:
        print(f"executed on {_hosts(elsewhere)}; these stop at their next step, with the state saved:")
        print_names(elsewhere)
    if not_queued:
        print("not in the queue; these will not start until you submit them again:")
        print_names(not_queued)
    sharing = [other for other, jobs in others.items() if any(job in tasks[run] for run in marked for job in jobs)]
    if sharing:
        print("the task goes on with its other runs:")
        print_names(sharing)


def _own_jobs(run: RunDir, queue: slurm.Queue) -> list[slurm.QueuedJob]:
    return [job for job in queue.get(run.name, ()) if is_job_of(run.path.parent, job.name)]


def _others_in_tasks(
    selected: Sequence[Selection], queues: Mapping[Path, slurm.Queue]
) -> dict[RunDir, Sequence[slurm.QueuedJob]]:
    """The runs that were not selected and still have to be executed, with their queued or running tasks."""
    return {
        other: queues[sweep.path].get(other.name, ())
        for sweep, only in selected
        if only
        for other in sweep.runs()
        if other.name != only.name and not other.is_done() and not other.cancelled()
    }


def _select(runs_dir: Path, name: str, pipeline: Pipeline | None) -> list[Selection]:
    if pipeline:
        return [(sweep, None) for sweep in pipeline.stage_sweeps()]
    if name == "all":
        return [(sweep, None) for sweep in with_whole_manifests(sweeps(runs_dir)) if _has_readable_submissions(sweep)]
    return [find_named(runs_dir, str(resolve_stage_name(runs_dir, name)))]


def _has_readable_submissions(sweep: SweepDir) -> bool:
    """Whether the sweep's jobs are known. If not, log it: one damaged sweep must not keep `all` from the others."""
    try:
        submissions(sweep)
    except RunError as error:
        log.warning(f"not cancelled: {error}")
        return False
    return True


def _all_stage_jobs(runs_dir: Path) -> list[str]:
    """The ids of the jobs that continue pipelines."""
    names = [name for pipeline in all_pipelines(runs_dir.absolute()) for name in pipeline.job_names()]
    return [job.job_id for job in slurm.squeue(names) if slurm.in_flight(job.state)]


def _hosts(runs: Sequence[RunDir]) -> str:
    """The hosts whose processes execute these runs."""
    hosts = dict.fromkeys(_host(run) for run in runs)
    return ", ".join(hosts)


def _host(run: RunDir) -> str:
    try:
        owner = read_json(run.owner_file, records.OWNER)
    except (RunError, OSError):
        owner = None
    return str((owner or {}).get("node", "an unknown host"))
