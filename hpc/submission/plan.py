"""Plan the SLURM arrays for a list of runs. Pure: the plan that `--dry-run` prints is the plan that is submitted."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from hpc.submission.profile import Profile
from hpc.submission.script import Options, log_options, script_text, setup_lines, srun_command, task_environment
from hpc.submission.site import SiteLimits, check_job_folder
from relay.runs.rundir import RunDir, SweepDir
from relay.text import counted

# Without --requeue, a site with JobRequeue=0 (slurm.conf) refuses `scontrol requeue`. Two CPUs: one computes, one
# prepares batches.
_DEFAULTS: Options = {"requeue": True, "nodes": 1, "ntasks-per-node": 1, "cpus-per-task": 2}
# Time limit of a job that only submits others, in minutes.
_SMALL_JOB_MIN = 20
# Options about the resources and the start of a task. A job that only submits others must not inherit them: it needs no
# GPU, and a dependency or a hold of the profile would keep it from starting.
_OF_TASKS = re.compile(
    r"(gres|gpus?|tres|mem|cpus?|ntasks|cores|sockets|threads)(-.*)?|mincpus|nodes|exclusive|licenses|signal|hold"
    r"|dependency"
)


@dataclass(frozen=True)
class SubmitPlan:
    """One SLURM array (or a single job): its tasks in order, each with the runs that it executes.

    `after`: the jobs that must be over before it starts: ids, or job names of earlier plans until these have ids.
    """

    job_name: str
    tasks: tuple[tuple[Path, ...], ...]
    log_folder: Path
    options: Options
    lines: tuple[str, ...]
    max_parallel: int
    after: tuple[str, ...] = ()

    def with_ids(self, ids: Mapping[str, str]) -> SubmitPlan:
        """The same plan, with job names in `after` replaced by the given ids."""
        return replace(self, after=tuple(ids.get(job, job) for job in self.after))

    @property
    def script_file(self) -> Path:
        """The script that sbatch is given."""
        return self.log_folder / f"{self.job_name}.sh"

    @property
    def tasks_file(self) -> Path:
        """The run directories of each task, which the tasks read. Their names do not need the id of the job."""
        return self.log_folder / f"{self.job_name}.json"

    @property
    def sbatch_text(self) -> str:
        """The script that sbatch gets."""
        return self.script_of(["hpc.node.task", str(self.tasks_file)])

    def script_of(self, call: Sequence[str]) -> str:
        """The same script for tasks that execute `python -m` the `call`."""
        is_array = len(self.tasks) > 1
        # The profile may have a dependency of its own; a comma means that both must be satisfied (sbatch(1)).
        waits = [":".join(["afterany", *self.after])] if self.after else []
        own = [str(self.options["dependency"])] if "dependency" in self.options else []
        more: dict[str, str] = {"dependency": ",".join([*own, *waits])} if own or waits else {}
        if is_array:
            more["array"] = f"0-{len(self.tasks) - 1}%{min(len(self.tasks), self.max_parallel)}"
        options = {**self.options, **log_options(self.log_folder, array=is_array), "job-name": self.job_name, **more}
        return script_text(options, [*self.lines, srun_command(self.log_folder, call, array=is_array)])

    def __str__(self) -> str:
        """In a few words: the number of tasks, how many run at a time, how many runs each has."""
        shape = f"one array of {counted(len(self.tasks), 'task')}, at most {self.max_parallel} at a time"
        most = max(len(runs) for runs in self.tasks)
        return (shape if len(self.tasks) > 1 else "one job") + (f", up to {most} runs in each" if most > 1 else "")


@dataclass(frozen=True)
class Target:
    """Where the tasks of a sweep run, and the code snapshot that they execute."""

    sweep: SweepDir
    profile: Profile
    site: SiteLimits
    code: Path


def plan_arrays(
    target: Target, runs: Sequence[RunDir], number: int, queued: int = 0, before: Sequence[str] = ()
) -> list[SubmitPlan]:
    """Plan arrays for all the runs, each as large as the site takes; the first one is the sweep's `number`-th
    submission.

    `queued` tasks of the same sweep are in the queue already, in the jobs with the ids `before`. All arrays together
    keep to the profile's `max_parallel`.
    """
    # SLURM's throttle (--array=0-9%4) counts the tasks of its own array only. So a further array gets the places that
    # are left: one long task does not hold up all others. If less than half of the places are left, it waits for the
    # jobs before it instead, since nothing would raise its throttle later.
    profile, each = target.profile, target.profile.cells_per_job
    tasks = [[run.path.absolute() for run in runs[at : at + each]] for at in range(0, len(runs), each)]
    size, plans = max(1, target.site.array_size), list[SubmitPlan]()
    for start in range(0, len(tasks), size):
        part, free = tasks[start : start + size], profile.max_parallel - queued
        fits = len(part) <= free or not queued
        waits = not fits and 2 * free < profile.max_parallel
        share = profile if fits or waits else profile.model_copy(update={"max_parallel": free})
        name, after = job_name(target.sweep.path, number + len(plans)), before if waits else ()
        plan = make_plan(
            *(share, target.site.gres, name, part, target.sweep.jobs.absolute(), target.code, after),
            kill_wait_s=target.site.kill_wait_s,
        )
        plans.append(plan)
        # To wait for an array that waits for the earlier jobs is to wait for these too.
        queued, before = queued + len(part), [*([] if waits else before), name]
    return plans


def make_plan(
    profile: Profile,
    gres: str | None,
    job_name: str,
    tasks: Sequence[Sequence[Path]],
    log_folder: Path,
    code: Path,
    after: Sequence[str] = (),
    kill_wait_s: int = 30,
) -> SubmitPlan:
    """Plan one array: the tasks under the profile, on the slice `gres`, with the code in `code`.

    It starts once the jobs `after` are over, however they end. `kill_wait_s`: the seconds between SLURM's SIGTERM and
    its SIGKILL. Raises ClusterError if SLURM would change `log_folder`.
    """
    check_job_folder(log_folder)
    options: dict[str, str | int | bool] = {**_DEFAULTS, **profile.sbatch_options()}
    if gres:
        options["gres"] = gres
    lines = (*setup_lines(profile, code), *task_environment(profile, gres, kill_wait_s))
    runs = tuple(tuple(paths) for paths in tasks)
    return SubmitPlan(job_name, runs, log_folder, options, lines, profile.max_parallel, tuple(after))


def options_without_slice(profile: Profile, **changes: str | int) -> Options:
    """sbatch's options for a small job on one CPU that only submits others: the profile's, without those about
    resources, updated with `changes`.
    """
    options = {name: value for name, value in profile.sbatch_options().items() if not _OF_TASKS.fullmatch(name)}
    small: dict[str, str | int | bool] = {"cpus-per-task": 1, "time": min(_SMALL_JOB_MIN, profile.time_min)}
    if profile.mem_gb is not None:
        small["mem"] = "2G"
    elif "mem-per-cpu" in profile.sbatch_options():
        small["mem-per-cpu"] = profile.sbatch_options()["mem-per-cpu"]
    return {"requeue": True, **options, **small, **changes}


def job_name(folder: Path, number: int) -> str:
    """The job name of the `number`-th submission of the sweep or pipeline in `folder`."""
    # With a hash of the path: squeue is asked by name, and another runs directory may have a sweep of the same name.
    place = hashlib.sha256(str(folder.absolute()).encode()).hexdigest()[:4]
    return f"{_prefix(folder)}{place}.{number}"


def is_job_of(folder: Path, name: str) -> bool:
    """Whether a job with this name may be one of the sweep or pipeline in `folder`, wherever that lay then.

    What a run directory names need not be: it must not end another job of the user.
    """
    return name.startswith(_prefix(folder))


def _prefix(folder: Path) -> str:
    return re.sub(r"[^A-Za-z0-9._-]", "-", f"relay-{folder.name}-")
