"""Memory limits of jobs: by the kernel's cgroups of version 1, where this user may make one for the cluster.

SLURM has no other way to end a job as OUT_OF_MEMORY: JobAcctGatherParams=OverMemoryKill kills a step that is above its
limit, and calls it CANCELLED. Its plugin for cgroups of version 2 wants systemd, and has not been tried here.
"""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path

from hpc.one_machine.machine import OneMachine
from src.errors import ClusterError

HIERARCHY = Path("/sys/fs/cgroup/memory")
_REMOVE_TIMEOUT_S = 5.0


def make_group(machine: OneMachine, hierarchy: Path = HIERARCHY) -> bool:
    """A group of this cluster's own, linked from its folder, where SLURM looks for it. False if there can be none.

    In SLURM's usual place two clusters would share the groups of nodes and jobs that have the same names.
    """
    group = hierarchy / f"relay_{os.geteuid()}_{machine.name}"
    try:
        group.mkdir(exist_ok=True)
    except OSError:
        return False
    if not (group / "memory.limit_in_bytes").is_file():
        group.rmdir()
        return False
    machine.cgroup.mkdir()
    (machine.cgroup / "memory").symlink_to(group)
    return True


def remove_group(machine: OneMachine) -> None:
    """The group with those of the nodes and jobs in it, which are empty now. Raises ClusterError if it stays."""
    link = machine.cgroup / "memory"
    if not link.is_symlink():
        return
    group, deadline_s = link.readlink(), time.monotonic() + _REMOVE_TIMEOUT_S
    while group.is_dir():
        for folder, _, _ in os.walk(group, topdown=False):
            with contextlib.suppress(OSError):  # A process that was just killed may still be in it.
                Path(folder).rmdir()
        if time.monotonic() > deadline_s:
            raise ClusterError(f"{group} cannot be removed. Try the same command again")
        time.sleep(0.05)
