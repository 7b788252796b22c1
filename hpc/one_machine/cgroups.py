"""The cluster's own groups in cgroups version 1, if this user may create them.

- memory: limits of jobs. SLURM reports OUT_OF_MEMORY only with cgroups: JobAcctGatherParams=OverMemoryKill also kills a
  step above its limit, but reports CANCELLED.
- freezer: `proctrack/cgroup`, which finds the processes of a step by their group.

Nothing is mounted: SLURM finds the groups through links. Its plugin for cgroups version 2 needs systemd, and has not
been tried here.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from hpc.one_machine.machine import OneMachine
from relay.errors import ClusterError

Controller = Literal["memory", "freezer"]
ROOT = Path("/sys/fs/cgroup")
# A file of every group in a hierarchy of version 1 that has the controller. Version 2 has other files.
_MARKS: dict[Controller, str] = {"memory": "memory.limit_in_bytes", "freezer": "freezer.state"}
_REMOVE_TIMEOUT_S = 5.0


def why_not(controller: Controller, root: Path = ROOT) -> str:
    """Why no group can be created for this controller; empty if one can. It creates a group and removes it again."""
    probe = root / controller / f"relay_{os.geteuid()}_probe_{os.getpid()}"
    if reason := _create(probe, controller):
        return reason
    probe.rmdir()
    return ""


def _create(group: Path, controller: Controller) -> str:
    """Create the group, unless it exists. If that is not possible, return the reason and leave nothing behind."""
    hierarchy = group.parent
    if not hierarchy.is_dir():
        has_version_2 = (hierarchy.parent / "cgroup.controllers").is_file()
        version = ": the cgroups of this machine are of version 2" if has_version_2 else ""
        return f"there is no {controller} hierarchy of cgroups version 1 at {hierarchy}{version}"
    try:
        group.mkdir(exist_ok=True)
    except OSError as error:
        return f"cannot create a cgroup in {hierarchy}: {error.strerror}"
    if not (group / _MARKS[controller]).is_file():
        group.rmdir()
        return f"{hierarchy} is not a {controller} hierarchy of cgroups version 1"
    return ""


def make_group(machine: OneMachine, controller: Controller, root: Path = ROOT) -> str:
    """Create a group for this cluster, and a link to it where SLURM looks for it. If that is not possible, say why.

    In SLURM's default location, two clusters would share the groups of nodes and jobs with equal names.
    """
    group, link = root / controller / f"relay_{os.geteuid()}_{machine.name}", machine.cgroup / controller
    # The link comes first: `down` finds the group by it, even if `up` is killed here.
    machine.cgroup.mkdir(exist_ok=True)
    link.symlink_to(group)
    if reason := _create(group, controller):
        link.unlink()
        return reason
    return ""


def members(machine: OneMachine) -> set[int]:
    """Pids in the groups of this cluster, among them those that left their session, parent and environment."""
    return {pid for group in _groups(machine) for pid in _pids(group)}


def thaw(machine: OneMachine) -> None:
    """Let suspended jobs run: in a frozen group of version 1, even SIGKILL waits."""
    for group in _groups(machine):
        for folder in _subgroups(group):
            if _read(folder / "freezer.state").strip() not in {"", "THAWED"}:
                (folder / "freezer.state").write_text("THAWED")


def leave(machine: OneMachine) -> None:
    """Move this process out of the groups: a user may run `down` inside a job, and must not be killed with it."""
    for group in _groups(machine):
        if os.getpid() in _pids(group):
            (group.parent / "cgroup.procs").write_text(str(os.getpid()))


def remove_groups(machine: OneMachine) -> None:
    """Remove the groups and their subgroups. Raises ClusterError if one stays."""
    for group in _groups(machine):
        _remove(group)


def _remove(group: Path) -> None:
    deadline_s = time.monotonic() + _REMOVE_TIMEOUT_S
    while group.is_dir():
        for folder in _subgroups(group):
            with contextlib.suppress(OSError):  # EBUSY while a process that was just killed is still in the group.
                folder.rmdir()
        if time.monotonic() > deadline_s:
            raise ClusterError(f"{group} cannot be removed. Run the same command again")
        time.sleep(0.05)


def _groups(machine: OneMachine) -> list[Path]:
    links = [machine.cgroup / controller for controller in _MARKS]
    return [link.readlink() for link in links if link.is_symlink()]


def _subgroups(group: Path) -> Iterator[Path]:
    """The group and all below it, the deepest first."""
    return (Path(folder) for folder, _, _ in os.walk(group, topdown=False))


def _pids(group: Path) -> set[int]:
    return {int(pid) for folder in _subgroups(group) for pid in _read(folder / "cgroup.procs").split()}


def _read(path: Path) -> str:
    """Empty if the group is gone, or has no such file."""
    try:
        return path.read_text()
    except OSError:
        return ""
