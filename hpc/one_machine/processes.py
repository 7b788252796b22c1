"""Processes as /proc shows them: the daemons of a cluster, what its jobs left behind, and how they are ended.

A process is known by its pid together with the moment when it started, so that a pid which the kernel gave to somebody
else meanwhile is never signalled.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from hpc.one_machine.machine import OneMachine
from src.errors import ClusterError

KILL_TIMEOUT_S = 15.0
POLL_S = 0.05


@dataclass(frozen=True)
class Process:
    """One process, told apart from a later one with the same pid by `start_ticks` (clock ticks since boot)."""

    label: str
    pid: int
    start_ticks: int

    def is_alive(self) -> bool:
        """False too for a process that ended and still has its pid because nobody asked for its exit code."""
        return start_ticks(self.pid) == self.start_ticks

    def send(self, signal_number: signal.Signals) -> None:
        """Does nothing if the process is gone, whoever has its pid now."""
        if self.is_alive():
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal_number)


def _stat(pid: int) -> list[str]:
    """Fields of /proc/PID/stat from the third on (state, parent, ...); empty if there is no such process."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return []


def _pids() -> list[int]:
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]


def start_ticks(pid: int) -> int | None:
    """When a living process started; None if it is gone, or dead and only waiting for its parent to notice."""
    fields = _stat(pid)
    return int(fields[19]) if fields and fields[0] not in "ZX" else None


def job_processes(machine: OneMachine) -> list[Process]:
    """slurmstepd's of this cluster, what descends from them, and what a job left behind when its step was gone.

    Nothing is concluded from a process's name alone. A slurmstepd belongs to this cluster if it holds a socket in the
    spool folder of one of its nodes, an orphan if SLURM put it on such a node (SLURMD_NODENAME, which no user's shell
    has) with this very slurm.conf.
    """
    sockets = _spool_sockets(machine)
    roots = [pid for pid in _pids() if _is_step_daemon(pid, sockets) or _is_orphan(machine, pid)]
    return living("job", set(roots) | descendants(roots))


def descendants(roots: Iterable[int]) -> set[int]:
    """Pids of the children of `roots`, of their children and so on; of `roots` only those that descend from others."""
    parents = {pid: _stat(pid)[1:2] for pid in _pids()}
    found: set[int] = set()
    families = {str(pid) for pid in roots}
    while more := {pid for pid, parent in parents.items() if parent and parent[0] in families and pid not in found}:
        found |= more
        families = {str(pid) for pid in more}
    return found


def living(label: str, pids: Iterable[int]) -> list[Process]:
    """Those that run now. Never this very process: somebody may type `down` inside a job."""
    return [
        Process(label, pid, ticks)
        for pid in sorted(set(pids) - {os.getpid()})
        if (ticks := start_ticks(pid)) is not None
    ]


def _spool_sockets(machine: OneMachine) -> set[str]:
    """`socket:[INODE]` of each unix socket that is bound in this cluster's spool, as /proc/PID/fd shows it."""
    rows = [line.split() for line in Path("/proc/net/unix").read_text(errors="replace").splitlines()]
    return {f"socket:[{row[6]}]" for row in rows if len(row) == 8 and row[7].startswith(f"{machine.spool}/")}


def _is_step_daemon(pid: int, sockets: set[str]) -> bool:
    try:
        if Path(f"/proc/{pid}/comm").read_text().strip() != "slurmstepd":
            return False
        return any(str(entry.readlink()) in sockets for entry in Path(f"/proc/{pid}/fd").iterdir())
    except OSError:  # it is gone, or somebody else's
        return False


def _is_orphan(machine: OneMachine, pid: int) -> bool:
    try:
        environment = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return False
    nodes = {f"SLURMD_NODENAME={node}".encode() for node in machine.nodes}
    return f"SLURM_CONF={machine.slurm_conf}".encode() in environment and not nodes.isdisjoint(environment)


def stop(processes: Sequence[Process], timeout_s: float) -> None:
    """SIGTERM, then SIGKILL for those that are still there after `timeout_s`. Raises ClusterError if one stays."""
    for number, wait_s in ((signal.SIGTERM, timeout_s), (signal.SIGKILL, KILL_TIMEOUT_S)):
        for process in processes:
            process.send(number)
        deadline_s = time.monotonic() + wait_s
        while any(process.is_alive() for process in processes) and time.monotonic() < deadline_s:
            time.sleep(POLL_S)
    stayed = [f"{process.label} (pid {process.pid})" for process in processes if process.is_alive()]
    if stayed:
        raise ClusterError(f"still running after SIGKILL: {', '.join(stayed)}. Try the same command again")
