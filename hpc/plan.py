"""Runs and a profile -> what is submitted. Pure: the plan that `--dry-run` prints is the plan that is submitted."""

from __future__ import annotations

import hashlib
import re
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hpc.cluster import Profile
from src.code_snapshot import check_commands
from src.errors import ClusterError

# More than any number of time-outs: submitit's own countdown never ends a run, the budgets of lifecycle.py do.
MAX_NUM_TIMEOUT = 10**9
_CPUS = 2  # One computes, one makes the next batch ready.


@dataclass(frozen=True)
class SubmitPlan:
    """One SLURM array (or single job): tasks in order, each with the runs that it executes one after the other."""

    job_name: str
    tasks: tuple[tuple[Path, ...], ...]
    log_folder: Path
    parameters: Mapping[str, Any]

    @property
    def sbatch_text(self) -> str:
        """The script that sbatch gets."""
        from submitit.slurm.slurm import _make_sbatch_string

        count: dict[str, Any] = {"map_count": len(self.tasks)} if len(self.tasks) > 1 else {}
        text: str = _make_sbatch_string(
            command=task_command(self.log_folder), folder=self.log_folder, **self.parameters, **count
        )
        return text


def worker_python() -> str:
    """This Python, as a shell command that survives SIGUSR2 while it starts.

    SLURM may send the signal up to a minute early (sbatch(1), --signal), to a process that has no handler yet and
    would die of it. Ignored, it is followed by SIGTERM at the time limit, which finds the handler in its place.
    """
    return f'bash -c \'trap "" USR2; exec "$0" "$@"\' {shlex.quote(sys.executable)}'


def task_command(log_folder: Path) -> str:
    """What a task executes on its node: submitit's worker."""
    return f"{worker_python()} -u -m submitit.core._submit {shlex.quote(str(log_folder))}"


def check_job_folder(folder: Path) -> None:
    """Raise ClusterError where the files of jobs in this folder would go elsewhere.

    sbatch(1), filename pattern: SLURM replaces `%j` and the like in --output, and drops backslashes; submitit replaces
    `%j`, `%t`, `%A` and `%a` in its folder too, so that SLURM's `%%` is no way out.
    """
    if re.search(r"[%\\]", str(folder.absolute())):
        raise ClusterError(
            f"paths.runs_dir: {folder.absolute()}: SLURM would replace what follows a % or a \\ in this path; "
            "set paths.runs_dir to a folder without them, or rename the folder"
        )


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
    parameters = _parameters(profile, gres, job_name, code)
    if after:
        own = parameters["additional_parameters"].get("dependency")
        wanted = ":".join(["afterany", *after])
        parameters["additional_parameters"]["dependency"] = f"{own},{wanted}" if own else wanted
    return SubmitPlan(job_name, tuple(tuple(runs) for runs in tasks), log_folder, parameters)


def job_name(folder: Path, number: int) -> str:
    """The name of the `number`-th submission of the sweep in `folder`: no other runs directory of the site has it."""
    place = hashlib.sha256(str(folder.absolute()).encode()).hexdigest()[:4]
    return re.sub(r"[^A-Za-z0-9._-]", "-", f"relay-{folder.name}-{place}.{number}")


def _parameters(profile: Profile, gres: str | None, job_name: str, code: Path) -> dict[str, Any]:
    wanted = {
        "job_name": job_name,
        "time": profile.time_min,
        "nodes": 1,
        "ntasks_per_node": 1,
        "cpus_per_task": profile.cpus or _CPUS,
        "mem": f"{round(profile.mem_gb * 1024)}MB",
        "partition": profile.partition,
        "account": profile.account,
        "qos": profile.qos,
        "constraint": profile.constraint,
        "gres": gres,
        "signal_delay_s": profile.signal_lead_s,
        "array_parallelism": profile.max_parallel,
        # Without --requeue a site with JobRequeue=0 refuses `scontrol requeue`.
        "additional_parameters": {"requeue": True, **profile.sbatch},
        "setup": [*task_environment(profile, gres, code), *profile.setup],
    }
    return {name: value for name, value in wanted.items() if value is not None}


def task_environment(profile: Profile, gres: str | None, code: Path) -> list[str]:
    """What a task needs to find its code and know its terms, also where the site does not export the environment."""
    return [
        *check_commands(code),
        f"export RELAY_SIGNAL_LEAD_S={profile.signal_lead_s}",
        f"export RELAY_NEEDS_GPU={int(profile.needs_gpu)}",
        f"export RELAY_SLICE={shlex.quote(gres or '')}",
    ]
