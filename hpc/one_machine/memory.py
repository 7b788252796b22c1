"""Memory limits of jobs, enforced by cgroups version 1 if this user may create a group for the cluster.

SLURM reports OUT_OF_MEMORY only with cgroups: JobAcctGatherParams=OverMemoryKill also kills a step above its limit, but
reports CANCELLED. SLURM's plugin for cgroups version 2 needs systemd, and has not been tried here.
"""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path

from hpc.one_machine.machine import OneMachine
from relay.errors import ClusterError

HIERARCHY = Path("/sys/fs/cgroup/memory")
_REMOVE_TIMEOUT_S = 5.0


def make_group(machine: OneMachine, hierarchy: Path = HIERARCHY) -> bool:
    """Create a group for this cluster, and a link to it where SLURM looks for it. False if that is not possible.

    In SLURM's default location, two clusters would share the groups of nodes and jobs with equal names.
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
    """Remove the group and its empty subgroups. Raises ClusterError if it stays."""
    link = machine.cgroup / "memory"
    if not link.is_symlink():
        return
    group, deadline_s = link.readlink(), time.monotonic() + _REMOVE_TIMEOUT_S
    while group.is_dir():
        for folder, _, _ in os.walk(group, topdown=False):
            with contextlib.suppress(OSError):  # EBUSY while a process that was just killed is still in the group.
                Path(folder).rmdir()
        if time.monotonic() > deadline_s:
            raise ClusterError(f"{group} cannot be removed. Run the same command again")
        time.sleep(0.05)
