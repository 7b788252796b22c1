"""The peak memory of runs: measured by the process that executes them, and kept with attempts and results."""

from __future__ import annotations

import contextlib
import resource
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

_MIB = 2**20
_STATUS = Path("/proc/self/status")
_CGROUPS, _OWN_CGROUP = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")
# The most that the processes below this one have held together, in MiB.
_children_mb = 0


def peak_memory() -> dict[str, int]:
    """The most that this process has held so far, in MiB: `host_mb`, and `gpu_mb` if it has used a GPU.

    Of the GPU, it is what torch reserved; the driver takes some hundred MiB more. A run in a process that has executed
    others before (`--here`), has at least their peak. What `note_children` was told is added.
    """
    found = {"host_mb": _host_peak() // _MIB + _children_mb}
    # Not imported here: the login node must not import torch, and a process without it has not used a GPU.
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        found["gpu_mb"] = torch.cuda.max_memory_reserved() // _MIB
    return found


def note_children(mb: int) -> None:
    """Note what the processes below this one, which compute for it, hold together now."""
    global _children_mb
    _children_mb = max(_children_mb, mb)


def memory_kills() -> int:
    """How many processes the kernel has killed because this job's memory was used up; 0 if it does not say.

    From the innermost cgroup that counts them: memory.events of version 2, memory.oom_control of version 1 (kernel
    documentation, cgroup-v2 and cgroup-v1/memory).
    """
    with contextlib.suppress(OSError, ValueError, KeyError, StopIteration):
        of_controllers = dict(line.split(":", 2)[1:] for line in _OWN_CGROUP.read_text().splitlines())
        innermost = [
            _CGROUPS / base / own.lstrip("/") / name
            for base, controller, name in (("", "", "memory.events"), ("memory", "memory", "memory.oom_control"))
            if (own := of_controllers.get(controller)) is not None
        ]
        outwards = (up / file.name for file in innermost for up in file.parents)
        file = next(path for path in outwards if path.is_file())
        return int(dict(line.split() for line in file.read_text().splitlines())["oom_kill"])
    return 0


def _host_peak() -> int:
    """In bytes."""
    # Not getrusage: Linux keeps its peak over exec, so it may be that of a larger process which started this one.
    if _STATUS.exists():
        fields = dict(line.split(":", 1) for line in _STATUS.read_text().splitlines())
        return int(fields["VmHWM"].removesuffix("kB")) * 1024  # proc(5)
    # macOS counts in bytes, getrusage(2).
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def most_memory(peaks: Iterable[Mapping[str, int]]) -> dict[str, int]:
    """The greatest `host_mb` and `gpu_mb` of several peaks; without those that none of them has."""
    greatest: dict[str, int] = {}
    for each in peaks:
        for name, mb in each.items():
            greatest[name] = max(greatest.get(name, 0), mb)
    return greatest
