"""What /proc says of the processes of this machine."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path


def _stat(pid: int) -> list[str]:
    """Fields of /proc/PID/stat from the third on (state, parent, ...); empty if the process does not exist.

    The second field is the program name in brackets, which may itself contain spaces and brackets (proc(5)).
    """
    try:
        return Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return []


def pids() -> list[int]:
    """Of all processes of this machine."""
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]


def start_ticks(pid: int) -> int | None:
    """When a running process started; None if it is gone or a zombie."""
    fields = _stat(pid)
    return int(fields[19]) if fields and fields[0] not in "ZX" else None


def command_line(pid: int) -> list[str]:
    """The words with which a process was started; [] if it is gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")[:-1]
    except OSError:
        return []


def environment_of(pid: int) -> list[bytes]:
    """The variables with which a process was started; [] if it is gone, or another user's."""
    try:
        return Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return []


def catches(pid: int, number: int) -> bool:
    """Whether a process has a handler of its own for a signal."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text(errors="replace").splitlines()
    except OSError:
        return False
    caught = next((line.split()[1] for line in lines if line.startswith("SigCgt:")), "0")
    return bool(int(caught, 16) >> (number - 1) & 1)


def listener(root: int, number: int) -> int | None:
    """The process to send a signal to, so that a script below `root` gets it: the first one from there down that
    catches it. None if none does.

    Never a worker of a data loader, which may catch it as well: a forked one has the command line of its parent, others
    are started by multiprocessing.
    """
    level = [root]
    while level:
        for pid in level:
            if catches(pid, number):
                return pid
        level = [
            child
            for pid in level
            for child in sorted(children(pid))
            if (words := command_line(child)) != command_line(pid) and "multiprocessing" not in " ".join(words[1:3])
        ]
    return None


def children(parent: int) -> list[int]:
    """Pids of the processes that a process has started, or adopted."""
    return [pid for pid in pids() if _stat(pid)[1:2] == [str(parent)]]


def descendants(roots: Iterable[int]) -> set[int]:
    """Pids of all descendants of `roots`. A root is included only if it descends from another one."""
    parents = {pid: _stat(pid)[1:2] for pid in pids()}
    found: set[int] = set()
    families = {str(pid) for pid in roots}
    while more := {pid for pid, parent in parents.items() if parent and parent[0] in families and pid not in found}:
        found |= more
        families = {str(pid) for pid in more}
    return found
