"""Checks that the GPU slice of a task is the one that its profile asks for."""

from __future__ import annotations

import os
import re
import socket

from relay import hints
from relay.errors import ClusterError

# A MIG instance reports less memory than its name says: 10.75 GiB for 1g.12gb, 9.5 GiB for 1g.10gb.
_LEAST_SHARE, _MOST_SHARE = 0.75, 1.1


def check_slice() -> str:
    """Describe the device of this task in one line: the slice with its name and memory, or the CPU of this host.

    Raises ClusterError if the profile asks for a GPU and not exactly that one is visible. A run on the CPU would waste
    the allocation, and a larger slice would belong to someone else.
    """
    if os.environ.get("RELAY_NEEDS_GPU", "0") != "1":
        return f"{socket.gethostname()}, CUDA_VISIBLE_DEVICES {_visible()}, no GPU asked for"
    # Here and not above: the login node imports this module through submission/submit.
    import torch

    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if count != 1:
        raise ClusterError(
            f"needs_gpu: {count} GPUs are visible on {socket.gethostname()} (CUDA_VISIBLE_DEVICES {_visible()}), but a "
            "task needs exactly one. Check gres and slice of the profile. To install a torch that fits the driver: "
            f"{hints.make('setup', 'TORCH_BACKEND=auto')}"
        )
    device = torch.cuda.get_device_properties(0)
    reason = slice_mismatch(os.environ.get("RELAY_SLICE", ""), device.name, device.total_memory)
    if reason:
        raise ClusterError(f"slice: {socket.gethostname()} gave {reason}; check slice and gres of the profile")
    return f"{device.name}, {device.total_memory / 2**30:.2f} GiB, on {socket.gethostname()}"


def slice_mismatch(wanted: str, name: str, memory_bytes: int) -> str:
    """How a device differs from the slice `wanted`, a gres type such as `1g.12gb` or `nvidia_h100_nvl`; "" if it fits.

    If both names contain a MIG profile, it must be the same. The memory must fit the gigabytes of the MIG profile. A
    gres type without a MIG profile fits every device.
    """
    profile = re.search(r"\d+g\.(\d+)gb", wanted)
    if not profile:
        return ""
    shown = re.search(r"\d+g\.\d+gb", name)
    if shown and shown.group() != profile.group():
        return f"{name!r} where {profile.group()} was asked for"
    gigabytes = memory_bytes / 1e9
    if not _LEAST_SHARE <= gigabytes / int(profile.group(1)) <= _MOST_SHARE:
        return f"{name!r} with {gigabytes:.1f} GB where {profile.group()} was asked for"
    return ""


def _visible() -> str:
    return os.environ.get("CUDA_VISIBLE_DEVICES", "not set")
