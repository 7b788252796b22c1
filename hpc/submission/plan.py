"""Plan the SLURM arrays for a list of runs. Pure: the plan that `--dry-run` prints is the plan that is submitted."""

from __future__ import annotations

import hashlib
import re
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hpc.submission.profile import Profile
from hpc.submission.site import SiteLimits, check_job_folder
from src.runs.code_snapshot import check_commands
from src.runs.rundir import RunDir, SweepDir
from src.text import counted

# submitit stops requeuing after this many time-outs. It must never get there: the budgets of src/runs/causes.py decide.
MAX_NUM_TIMEOUT = 10**9
Options = Mapping[str, str | int | bool]
# Without --requeue, a site with JobRequeue=0 (slurm.conf) refuses `scontrol requeue`. Two CPUs: one computes, one
# prepares batches.
_DEFAULTS: Options = {"requeue": True, "nodes": 1, "ntasks-per-node": 1, "cpus-per-task": 2}
# Time limit of a job that only submits others, in minutes.
_SMALL_JOB_MIN = 20
# Options about the resources and the start of a task. A job that only submits others must not inherit them: it needs no
# GPU, and a dependency or a hold of the profile would keep it from starting.
_OF_TASKS = re.compile(
    r"(gres|gpus?|tres|mem|cpus?|ntasks|cores|sockets|threads)(-.*)?|mincpus|nodes|exclusive|licenses|signal|hold"
    r"|dependency|error|open-mode"
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
    setup: tuple[str, ...]
    max_parallel: int
    after: tuple[str, ...] = ()

    def with_ids(self, ids: Mapping[str, str]) -> SubmitPlan:
        """The same plan, with job names in `after` replaced by the given ids."""
        return replace(self, after=tuple(ids.get(job, job) for job in self.after))

    @property
    def parameters(self) -> dict[str, Any]:
        """The parameters for submitit's SlurmExecutor."""
        # The profile may have a dependency of its own; a comma means that both must be satisfied (sbatch(1)).
        waits = [":".join(["afterany", *self.after])] if self.after else []
        own = [str(self.options["dependency"])] if "dependency" in self.options else []
        dependency = {"dependency": ",".join([*own, *waits])} if own or waits else {}
        return {
            "job_name": self.job_name,
            "array_parallelism": self.max_parallel,
            "setup": list(self.setup),
            "additional_parameters": {**self.options, **dependency},
        }

    @property
    def sbatch_text(self) -> str:
        """The script that sbatch gets, as submitit writes it."""
        from submitit.slurm.slurm import _make_sbatch_string

        count: dict[str, Any] = {"map_count": len(self.tasks)} if len(self.tasks) > 1 else {}
        text: str = _make_sbatch_string(
            command=task_command(self.log_folder), folder=self.log_folder, **self.parameters, **count
        )
        return text

    def __str__(self) -> str:
        """In a few words: the number of tasks, how many run at a time, how many runs each has."""
        shape = f"one array of {counted(len(self.tasks), 'task')}, at most {self.max_parallel} at a time"
        most = max(len(runs) for runs in self.tasks)
        return (shape if len(self.tasks) > 1 else "one job") + (f", up to {most} runs in each" if most > 1 else "")


def worker_python() -> str:
    """This Python, as a shell command that ignores SIGUSR2 until Python has installed its handler."""
    # SLURM may send the signal up to a minute early (sbatch(1), --signal). Without a handler it would kill a process
    # that is still starting. If it is ignored, SIGTERM follows at the time limit, and by then the handler is installed.
    return f'bash -c \'trap "" USR2; exec "$0" "$@"\' {shlex.quote(sys.executable)}'


def task_command(log_folder: Path) -> str:
    """The command that a task executes on its node: submitit's worker, which unpickles and calls the task."""
    return f"{worker_python()} -u -m submitit.core._submit {shlex.quote(str(log_folder))}"


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
        part, left = tasks[start : start + size], profile.max_parallel - queued
        fits = len(part) <= left or not queued
        waits = not fits and 2 * left < profile.max_parallel
        share = profile if fits or waits else profile.model_copy(update={"max_parallel": left})
        name, after = job_name(target.sweep.path, number + len(plans)), before if waits else ()
        plan = make_plan(share, target.site.gres, name, part, target.sweep.jobs.absolute(), target.code, after)
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
) -> SubmitPlan:
    """Plan one array: the tasks under the profile, on the slice `gres`, with the code in `code`.

    It starts once the jobs `after` are over, however they end. Raises ClusterError if SLURM would change `log_folder`.
    """
    check_job_folder(log_folder)
    options: dict[str, str | int | bool] = {**_DEFAULTS, **profile.sbatch_options()}
    if gres:
        options["gres"] = gres
    setup = (*task_environment(profile, gres, code), *profile.setup)
    runs = tuple(tuple(paths) for paths in tasks)
    return SubmitPlan(job_name, runs, log_folder, _switched_on(options), setup, profile.max_parallel, tuple(after))


def options_without_slice(profile: Profile, **changes: str | int) -> Options:
    """sbatch's options for a small job on one CPU that only submits others: the profile's, without those about
    resources, updated with `changes`.
    """
    options = {name: value for name, value in profile.sbatch_options().items() if not _OF_TASKS.fullmatch(name)}
    small: Options = {"cpus-per-task": 1, "mem": "2G", "time": min(_SMALL_JOB_MIN, profile.time_min)}
    return _switched_on({"requeue": True, **options, **small, **changes})


def _switched_on(options: Options) -> Options:
    # A profile removes one of our defaults with `false`, such as `sbatch: {requeue: false}`.
    return {name: value for name, value in options.items() if value is not False}


def job_name(folder: Path, number: int) -> str:
    """The job name of the `number`-th submission of the sweep or pipeline in `folder`."""
    # With a hash of the path: squeue is asked by name, and another runs directory may have a sweep of the same name.
    place = hashlib.sha256(str(folder.absolute()).encode()).hexdigest()[:4]
    return re.sub(r"[^A-Za-z0-9._-]", "-", f"relay-{folder.name}-{place}.{number}")


def task_environment(profile: Profile, gres: str | None, code: Path) -> list[str]:
    """The shell lines before a task: check and find its code, and set its variables."""
    # In the script and not in sbatch's environment: some sites submit with --export=NONE.
    count = profile.runs_per_slice
    # In a task with fewer runs, too: the number of threads must not depend on how runs were put together.
    share = f"$((SLURM_CPUS_PER_TASK > {count} ? SLURM_CPUS_PER_TASK / {count} : 1))"
    return [
        *check_commands(code),
        f"export RELAY_SIGNAL_LEAD_S={profile.signal_lead_s}",
        f"export RELAY_NEEDS_GPU={int(profile.needs_gpu)}",
        f"export RELAY_SLICE={shlex.quote(gres or '')}",
        *([f"export RELAY_RUNS_PER_SLICE={count} RELAY_CPUS={share}"] if count > 1 else []),
    ]
