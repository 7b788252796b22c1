"""Which profile a command submits under, and why.

In this order: --cluster; the profile of the sweep that it continues; that of the newest sweep on the same data, so
that what follows a grid goes where the grid went; RELAY_CLUSTER; `h100-mig` where sbatch exists, else `local`.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hpc.submission.profile import Profile, load_profile
from relay import hints
from relay.config import yaml_file
from relay.files import replace_file
from relay.runs.rundir import SweepDir
from relay.runs.sweeps import newest_on_same_inputs

_VARIABLE = "RELAY_CLUSTER"


@dataclass(frozen=True)
class Placement:
    """A profile, the name that finds it again from any folder, and where that name came from ("": --cluster)."""

    name: str
    profile: Profile
    reason: str

    def __str__(self) -> str:
        return f"profile {self.name}{f' ({self.reason})' if self.reason else ''}"


def place(
    runs_dir: Path, cluster: str | None, saved: Mapping[str, Any] | None = None, inputs: str | None = None
) -> Placement:
    """The profile of a command. Raises ConfigError if it does not exist or is not valid.

    `cluster`: the value of --cluster. `saved`: the sweep.yaml or pipeline.yaml that the command continues. `inputs`:
    those of the request, if it has any.
    """
    name, reason = choose_name(runs_dir, cluster, saved, inputs)
    name, profile = load_profile(name, reason or "--cluster", runs_dir)
    return Placement(name, profile, reason)


def choose_name(
    runs_dir: Path, cluster: str | None, saved: Mapping[str, Any] | None = None, inputs: str | None = None
) -> tuple[str, str]:
    """The name of the profile and where it came from, as for `place`."""
    if cluster:
        return cluster, ""
    if saved and (own := saved["call"]["cluster"]):
        return own, "as before"
    before = newest_on_same_inputs(runs_dir, inputs) if inputs else None
    if before:
        return str(before.meta()["call"]["cluster"]), f"as {before.name}, on the same data"
    if os.environ.get(_VARIABLE):
        return os.environ[_VARIABLE], _VARIABLE
    return default_name(), "the default of this machine"


def default_name() -> str:
    """The profile where nothing names one: `h100-mig` if this machine has sbatch, else `local`."""
    return "h100-mig" if shutil.which("sbatch") else "local"


def remember_profile(sweep: SweepDir, name: str) -> None:
    """Save in sweep.yaml the profile of its tasks from now on, and the command line for later hints."""
    saved = sweep.meta()
    content = {**saved, "call": hints.to_keep(sweep.kind, name)}
    if content != saved:
        replace_file(sweep.meta_file, yaml_file.dump_yaml(content))
