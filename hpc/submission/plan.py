"""Runs and a profile -> what is submitted. Pure: the plan that `--dry-run` prints is the plan that is submitted."""

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

# More than any number of time-outs: submitit's own countdown never ends a run, the budgets of lifecycle.py do.
MAX_NUM_TIMEOUT = 10**9
Options = Mapping[str, str | int | bool]
# Without --requeue a site with JobRequeue=0 refuses `scontrol requeue`. Two CPUs: one computes, one prepares batches.
_DEFAULTS: Options = {"requeue": True, "nodes": 1, "ntasks-per-node": 1, "cpus-per-task": 2}
_SMALL_JOB_MIN = 20
# Options of sbatch that are about what a task gets and when it starts: not for a job that only submits the next ones.
_OF_TASKS = re.compile(
    r"(gres|gpus?|tres|mem|cpus?|ntasks|cores|sockets|threads)(-.*)?|mincpus|nodes|exclusive|licenses|signal|hold"
    r"|dependency|error|open-mode"
)


@dataclass(frozen=True)
class SubmitPlan:
    """One SLURM array (or single job): tasks in order, each with the runs that it executes one after the other.

    `after`: the jobs that must be over before it starts, by their ids or by the job names of plans that come before it.
    """

    job_name: str
    tasks: tuple[tuple[Path, ...], ...]
    log_folder: Path
    options: Options
    setup: tuple[str, ...]
    max_parallel: int
    after: tuple[str, ...] = ()

    def with_ids(self, ids: Mapping[str, str]) -> SubmitPlan:
        """The same plan with ids in the place of job names."""
        return replace(self, after=tuple(ids.get(job, job) for job in self.after))

    @property
    def parameters(self) -> dict[str, Any]:
        """What submitit gets."""
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
        """The script that sbatch gets."""
        from submitit.slurm.slurm import _make_sbatch_string

        count: dict[str, Any] = {"map_count": len(self.tasks)} if len(self.tasks) > 1 else {}
        text: str = _make_sbatch_string(
            command=task_command(self.log_folder), folder=self.log_folder, **self.parameters, **count
        )
        return text

    def __str__(self) -> str:
        """In a few words: how many tasks, how many at a time, how many runs in each."""
        shape = f"one array of {counted(len(self.tasks), 'task')}, at most {self.max_parallel} at a time"
        most = max(len(runs) for runs in self.tasks)
        return (shape if len(self.tasks) > 1 else "one job") + (f", up to {most} runs in each" if most > 1 else "")


def worker_python() -> str:
    """This Python, as a shell command that survives SIGUSR2 while it starts.

    SLURM may send the signal up to a minute early (sbatch(1), --signal), to a process that has no handler yet and
    would die of it. Ignored, it is followed by SIGTERM at the time limit, which finds the handler in its place.
    """
    return f'bash -c \'trap "" USR2; exec "$0" "$@"\' {shlex.quote(sys.executable)}'


def task_command(log_folder: Path) -> str:
    """What a task executes on its node: submitit's worker."""
    return f"{worker_python()} -u -m submitit.core._submit {shlex.quote(str(log_folder))}"


@dataclass(frozen=True)
class Target:
    """Where the tasks of a sweep go, and the code that they execute."""

    sweep: SweepDir
    profile: Profile
    site: SiteLimits
    code: Path


def plan_arrays(
    target: Target, runs: Sequence[RunDir], number: int, queued: int = 0, before: Sequence[str] = ()
) -> list[SubmitPlan]:
    """All submissions that the runs need, each as large as the site takes; the first is the sweep's `number`-th.

    `squeue` tasks of the same sweep are in the queue, in the jobs `before`. The throttle of an array counts its own
    tasks only. A further array gets the places that are left, so that one long task does not hold up all others; where
    few are left it waits for the jobs before it, since nothing raises its throttle later.
    """
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
        # One that waits for the earlier ones stands for them.
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
    """The tasks under the profile, on the slice `gres`, executed with the code in `code`, once the jobs `after` are
    over, however they end.
    """
    check_job_folder(log_folder)
    options: dict[str, str | int | bool] = {**_DEFAULTS, **profile.sbatch_options()}
    if gres:
        options["gres"] = gres
    setup = (*task_environment(profile, gres, code), *profile.setup)
    runs = tuple(tuple(paths) for paths in tasks)
    return SubmitPlan(job_name, runs, log_folder, _given(options), setup, profile.max_parallel, tuple(after))


def options_without_slice(profile: Profile, **changes: str | int) -> Options:
    """sbatch's options for a small job on one CPU that submits others: those of the tasks, less what is about a task;
    with changes.
    """
    options = {name: value for name, value in profile.sbatch_options().items() if not _OF_TASKS.fullmatch(name)}
    small: Options = {"cpus-per-task": 1, "mem": "2G", "time": min(_SMALL_JOB_MIN, profile.time_min)}
    return _given({"requeue": True, **options, **small, **changes})


def _given(options: Options) -> Options:
    """Without those that are switched off."""
    return {name: value for name, value in options.items() if value is not False}


def job_name(folder: Path, number: int) -> str:
    """The name of the `number`-th submission of the sweep in `folder`: no other runs directory of the site has it."""
    place = hashlib.sha256(str(folder.absolute()).encode()).hexdigest()[:4]
    return re.sub(r"[^A-Za-z0-9._-]", "-", f"relay-{folder.name}-{place}.{number}")


def task_environment(profile: Profile, gres: str | None, code: Path) -> list[str]:
    """What a task needs to find its code and know its terms, also where the site does not export the environment."""
    return [
        *check_commands(code),
        f"export RELAY_SIGNAL_LEAD_S={profile.signal_lead_s}",
        f"export RELAY_NEEDS_GPU={int(profile.needs_gpu)}",
        f"export RELAY_SLICE={shlex.quote(gres or '')}",
    ]
