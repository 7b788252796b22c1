"""Finds the processes of a cluster in /proc, daemons and jobs, and stops them.

A process is identified by its pid and its start time: the kernel reuses pids, and the new owner must not be signalled.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from hpc.one_machine import cgroups
from hpc.one_machine.machine import OneMachine
from hpc.processes import descendants, pids, start_ticks
from relay.errors import ClusterError

KILL_TIMEOUT_S = 15.0
POLL_S = 0.05


@dataclass(frozen=True)
class Process:
    """One process. `start_ticks`, in clock ticks since boot, distinguishes it from a later one with the same pid."""

    label: str
    pid: int
    start_ticks: int

    def is_alive(self) -> bool:
        """False also for a zombie: it ended, and its parent has not read its exit code yet."""
        return start_ticks(self.pid) == self.start_ticks

    def send(self, signal_number: signal.Signals) -> None:
        """Send a signal, unless the process is gone."""
        if self.is_alive():
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal_number)


def job_processes(machine: OneMachine) -> list[Process]:
    """The slurmstepds of this cluster, their descendants, and the orphans of steps that are gone.

    A process name alone proves nothing. A slurmstepd belongs to this cluster if it holds a socket in the spool folder
    of one of its nodes. An orphan belongs to it if its environment has this slurm.conf and SLURMD_NODENAME of one of
    the nodes, which no user's shell has. So do the members of the cluster's cgroups.
    """
    sockets = _spool_sockets(machine)
    roots = [pid for pid in pids() if _is_step_daemon(pid, sockets) or _is_orphan(machine, pid)]
    return living("job", set(roots) | descendants(roots) | cgroups.members(machine))


def living(label: str, numbers: Iterable[int]) -> list[Process]:
    """The processes that run now, except this one: a user may run `down` inside a job."""
    return [
        Process(label, pid, ticks)
        for pid in sorted(set(numbers) - {os.getpid()})
        if (ticks := start_ticks(pid)) is not None
    ]


def _spool_sockets(machine: OneMachine) -> set[str]:
    """`socket:[INODE]`, as in /proc/PID/fd, of each unix socket in this cluster's spool folder."""
    rows = [line.split() for line in Path("/proc/net/unix").read_text(errors="replace").splitlines()]
    return {f"socket:[{row[6]}]" for row in rows if len(row) == 8 and row[7].startswith(f"{machine.spool}/")}


def _is_step_daemon(pid: int, sockets: set[str]) -> bool:
    try:
        if Path(f"/proc/{pid}/comm").read_text().strip() != "slurmstepd":
            return False
        return any(str(entry.readlink()) in sockets for entry in Path(f"/proc/{pid}/fd").iterdir())
    except OSError:  # the process is gone, or belongs to another user
        return False


def _is_orphan(machine: OneMachine, pid: int) -> bool:
    try:
        environment = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return False
    nodes = {f"SLURMD_NODENAME={node}".encode() for node in machine.nodes}
    return f"SLURM_CONF={machine.slurm_conf}".encode() in environment and not nodes.isdisjoint(environment)


def stop(processes: Sequence[Process], timeout_s: float) -> None:
    """Send SIGTERM, and SIGKILL to those that still run after `timeout_s`. Raises ClusterError if one survives."""
    for number, wait_s in ((signal.SIGTERM, timeout_s), (signal.SIGKILL, KILL_TIMEOUT_S)):
        for process in processes:
            process.send(number)
        deadline_s = time.monotonic() + wait_s
        while any(process.is_alive() for process in processes) and time.monotonic() < deadline_s:
            time.sleep(POLL_S)
    stayed = [f"{process.label} (pid {process.pid})" for process in processes if process.is_alive()]
    if stayed:
        raise ClusterError(f"still running after SIGKILL: {', '.join(stayed)}. Run the same command again")
