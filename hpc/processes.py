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


def descendants(roots: Iterable[int]) -> set[int]:
    """Pids of all descendants of `roots`. A root is included only if it descends from another one."""
    parents = {pid: _stat(pid)[1:2] for pid in pids()}
    found: set[int] = set()
    families = {str(pid) for pid in roots}
    while more := {pid for pid, parent in parents.items() if parent and parent[0] in families and pid not in found}:
        found |= more
        families = {str(pid) for pid in more}
    return found
