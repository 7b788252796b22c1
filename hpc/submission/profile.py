"""Cluster profiles: where tasks run, and the resources that each task gets."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, ValidationError, model_validator

from hpc.submission.sbatch_options import ignored_variables, problems
from hpc.submission.trust import check_profile
from relay.config import yaml_file
from relay.config.messages import describe
from relay.config.sections import Count, Section
from relay.errors import ConfigError
from relay.log import warn_once

# Where profiles are: the user's own, those of this folder's checkout, and those of the checkout of `relay`.
_FOLDERS = (Path("clusters"), Path("configs/clusters"), Path(os.environ.get("RELAY_HOME", "."), "configs/clusters"))
# sbatch(1), --signal: "the signal may be sent up to 60 seconds earlier than specified".
SIGNAL_EARLY_S = 60
_Word = Annotated[str, Field(pattern=r"^[^\s'\"`$\\;|&<>()]+$")]


@dataclass(frozen=True)
class SbatchOption:
    """Marks a field as an option of sbatch, with sbatch's long name if it differs and how to write the value."""

    name: str = ""
    write: Callable[[Any], str | int] = str


def _megabytes(gb: float) -> int:
    return round(gb * 1024)


def _positive(gb: float) -> float:
    if _megabytes(gb) < 1:
        raise ValueError("SLURM reads less than 1 MB as 0, which is all the memory of a node; give at least 0.001")
    return gb


_MemoryGb = Annotated[float, Field(gt=0, le=1_000_000), AfterValidator(_positive)]
# SLURM counts minutes in 32 bits; no site lets a job run for a year.
_Minutes = Annotated[int, Field(ge=1, le=366 * 24 * 60)]


# What runs on this machine, in the environment of the command that started them, do not read.
_ONLY_SLURM = (
    *("partition", "account", "qos", "constraint", "slice", "gres", "sbatch", "setup", "ignore_setup_errors"),
    *("time_min", "signal_lead_s"),
)


class Profile(Section):
    """One `configs/clusters/<name>.yaml`."""

    executor: Literal["local", "slurm"]
    """`slurm`, or `local`: this machine, without a scheduler."""
    partition: Annotated[_Word | None, SbatchOption()] = None
    """The partition, or several as a,b. Null: the site's default."""
    account: Annotated[_Word | None, SbatchOption()] = None
    """The account. Null: your default."""
    qos: Annotated[_Word | None, SbatchOption()] = None
    """The quality of service. Null: your default."""
    constraint: Annotated[Annotated[str, Field(pattern=r"^[^\n\r]+$")] | None, SbatchOption()] = None
    """The features that a node must have."""
    slice: _Word | None = None
    """The MIG slice of a task, such as 1g.12gb. It must fit exactly one of the names that sinfo shows."""
    gres: Annotated[_Word | None, SbatchOption()] = None
    """The GPU of a task, as sbatch takes it, if `slice` does not fit: gpu:TYPE:1."""
    needs_gpu: bool = False
    """A task fails at once unless it sees exactly one GPU."""
    # SLURM counts the CPUs of a task in 16 bits.
    cpus: Annotated[Annotated[int, Field(ge=1, le=65_535)] | None, SbatchOption("cpus-per-task")] = None
    """The CPUs that a task gets and computes with. Null: 2 with SLURM, an equal share of this machine without it."""
    mem_gb: Annotated[_MemoryGb | None, SbatchOption("mem", lambda gb: f"{_megabytes(gb)}MB")] = 8
    """The memory of a task, in GiB. Null: for sites that want it per CPU or per GPU, in `sbatch`."""
    time_min: Annotated[_Minutes, SbatchOption("time")] = 60
    """The time limit of a task, in minutes. A run that needs longer continues in the next task."""
    # sbatch(1), --signal: 65535 is the largest number of seconds.
    signal_lead_s: Annotated[int, Field(ge=1, le=65_535), SbatchOption("signal", lambda lead_s: f"USR2@{lead_s}")] = 90
    """How long before its time limit a task is told to save, in seconds."""
    max_parallel: Count = 1
    """How many tasks of a sweep run at a time."""
    cells_per_job: Count = 1
    """How many runs a task executes. Torch is imported once for all of them."""
    runs_per_slice: Count = 1
    """How many of these run at a time, each with an equal share of the CPUs."""
    sbatch: Mapping[_Word, str | int | bool] = Field(default_factory=dict)
    """Further options of sbatch by their long names. True: the option alone. False: leave it out."""
    setup: tuple[str, ...] = ()
    """Shell commands before a task. The first one that fails ends it."""
    ignore_setup_errors: bool = False
    """Start the task even if a command of `setup` fails."""

    @model_validator(mode="after")
    def _can_be_followed(self) -> Profile:
        given = {option: field for field, option, _ in self._own_options()}
        given |= {"gres": "slice"} if self.slice else {}
        # The count at the end, of `gpu:2` and `gpu:1g.12gb:2`.
        if self.gres and re.search(r"^gpu(:[^:,]+)?:0*([2-9]|[1-9]\d+)\b", self.gres):
            raise ValueError(f"gres: {self.gres}: a task computes on one GPU; ask for one, and raise max_parallel")
        if found := problems(self.sbatch, given):
            raise ValueError("\n  ".join(f"sbatch: {each}" for each in found))
        return self

    @model_validator(mode="after")
    def _several_runs_on_slurm(self) -> Profile:
        several = [name for name in ("cells_per_job", "runs_per_slice") if getattr(self, name) > 1]
        if self.executor == "local" and several:
            raise ValueError(
                f"{several[0]}: only a task of SLURM holds several runs; leave it at 1 with executor local"
            )
        defaults = type(self).model_construct(executor="local")
        given = {name for name, value in self if value != getattr(defaults, name)}
        unread = [name for name in _ONLY_SLURM if self.executor == "local" and name in given]
        if unread:
            raise ValueError(f"{', '.join(unread)}: only for executor slurm; runs on this machine would ignore it")
        if self.runs_per_slice > self.cells_per_job:
            raise ValueError(
                f"runs_per_slice: {self.runs_per_slice} at a time, but a task holds {self.cells_per_job}; raise "
                f"cells_per_job to {self.runs_per_slice} or more"
            )
        return self

    @model_validator(mode="after")
    def _lead_fits(self) -> Profile:
        if self.executor == "slurm" and self.signal_lead_s + SIGNAL_EARLY_S >= 60 * self.time_min:
            early = f" and SLURM may send the signal {SIGNAL_EARLY_S} s earlier than asked"
            raise ValueError(
                f"signal_lead_s: {self.signal_lead_s} s leave nothing of the time limit of {self.time_min} min{early}; "
                "lower it, or raise time_min"
            )
        return self

    def _own_options(self) -> Iterator[tuple[str, str, str | int]]:
        """Field, sbatch's name for it and its value, for each field that is an option of sbatch and is set."""
        for field, info in type(self).model_fields.items():
            value = getattr(self, field)
            for option in info.metadata:
                if isinstance(option, SbatchOption) and value is not None:
                    yield field, option.name or field, option.write(value)

    def sbatch_options(self) -> dict[str, str | int | bool]:
        """The options for sbatch by their long names: the fields that are options, and `sbatch`."""
        own = {name: value for _, name, value in self._own_options()}
        return {**own, **{key.replace("_", "-"): value for key, value in self.sbatch.items()}}


def profile_names() -> list[str]:
    """The names of the profiles."""
    return sorted({path.stem for folder in _FOLDERS for path in folder.glob("*.yaml")})


def load_profile(name: str, origin: str = "--cluster", runs_dir: Path | None = None) -> tuple[str, Profile]:
    """The profile with this name in clusters or configs/clusters, or at this path if it ends in .yaml or .yml.

    Returns it with the name that finds it again from any folder. `origin`: who gave the name, for messages. Raises
    ConfigError if there is none, if it is invalid, or if it lies in `runs_dir` or another run directory, RunError if it
    belongs to another user.
    """
    by_path = name.endswith((".yaml", ".yml"))
    paths = [Path(name)] if by_path else [folder / f"{name}.yaml" for folder in _FOLDERS]
    path = next((each for each in paths if each.is_file()), None)
    if path is None or (not by_path and path.parent not in _FOLDERS):
        raise ConfigError(
            f"{origin}: {name}: there is no such profile; in {' and '.join(_shown_folders())} there are "
            f"{', '.join(profile_names()) or 'none'}; choose one with --cluster NAME, or give the path of a .yaml file"
        )
    _refuse_in_run_directory(path, origin, runs_dir)
    check_profile(path)
    profile = read_profile(path)
    if profile.executor == "slurm" and (ignored := ignored_variables(os.environ, _option_fields())):
        warn_once(ignored)
    return str(path.absolute()) if by_path or path.parent == _FOLDERS[0] else name, profile


def _shown_folders() -> list[str]:
    """The folders with profiles; the usual one if there is none."""
    return [str(folder) for folder in dict.fromkeys(_FOLDERS) if folder.is_dir()] or [str(_FOLDERS[1])]


def read_profile(path: Path) -> Profile:
    """The profile in this file. Raises ConfigError if it is invalid."""
    try:
        content = {
            key: tuple(value) if isinstance(value, list) else value
            for key, value in yaml_file.read_mapping(path).items()
        }
        return Profile.model_validate(content)
    except ValidationError as error:
        raise ConfigError(describe(error, Profile, str(path))) from None


def _option_fields() -> dict[str, str]:
    """sbatch's long name -> field, for each field that is an option of sbatch."""
    return {
        option.name or field: field
        for field, info in Profile.model_fields.items()
        for option in info.metadata
        if isinstance(option, SbatchOption)
    }


def _refuse_in_run_directory(path: Path, origin: str, runs_dir: Path | None) -> None:
    # What a run directory names must not make Relay execute the `setup:` of a file that came with it.
    for folder in path.resolve().parents:
        if (runs_dir and folder == runs_dir.resolve()) or any(
            (folder / name).exists() for name in ("sweep.yaml", "pipeline.yaml")
        ):
            raise ConfigError(
                f"{origin}: {path}: lies in the run directory {folder}; a profile is a name in {_FOLDERS[1]} or a "
                "file of yours; copy it there"
            )
