"""The device that a run computes on, and the settings that make it compute the same numbers every time."""

from __future__ import annotations

import contextlib
import ctypes
import os
import random

import numpy as np
import torch

from relay.errors import ConfigError
from relay.program.own_code import is_own, packages_of_project
from relay.runs.environment import cpu_model, version_of
from src.config.schema import Config
from src.config.train_section import OPTIMIZERS
from src.models.registry import known

# mallopt(3) and malloc.h of glibc.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3


def choose_device(name: str) -> torch.device:
    """The device of `train.device`; `auto` is CUDA, else MPS, else the CPU. Raises ConfigError if it is missing."""
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    device = torch.device(name)
    count = torch.cuda.device_count() if device.type == "cuda" else 1
    missing = device.type == "cuda" and (device.index or 0) >= count
    if missing or (device.type == "mps" and not torch.backends.mps.is_available()):
        raise ConfigError(
            f"train.device: {name!r} is not available ({count} CUDA devices are visible); set it to auto or cpu"
        )
    return device


def device_facts(device: torch.device) -> dict[str, str]:
    """What of this machine decides how a run on `device` rounds, for its environment: `device` (cpu, cuda or mps),
    `cpu`, `cpu_capability` (the widest instructions that torch uses), and on a GPU `gpu`, `cuda` and `cudnn`.
    """
    facts = {
        "device": device.type,
        "cpu": cpu_model(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
    }
    if device.type == "cuda":
        # The name has the profile of a MIG slice: one with fewer multiprocessors is given other kernels.
        facts |= {"gpu": torch.cuda.get_device_name(device), "cuda": str(torch.version.cuda)}
        facts["cudnn"] = str(torch.backends.cudnn.version())  # type: ignore[no-untyped-call]
    return facts


def packages_of(config: Config) -> dict[str, str]:
    """The versions of the packages that networks and optimizers that are not ours are from, and of those that the
    user's code imports.
    """
    names = [known(config.model.type).package, config.train.optimizer.name.partition(".")[0]]
    names += packages_of_project(config.project.path) if config.own_code else []
    own = {"torch", "numpy", *OPTIMIZERS}
    versions = {name: version_of(name) for name in names if name and name not in own and not is_own(name)}
    return {name: version for name, version in sorted(versions.items()) if version}


def compute_reproducibly(seed: int) -> None:
    """Seed the global generators of torch, numpy and Python, and select kernels whose results are the same every time.

    Sets the number of CPU threads to the CPUs that the local profile or SLURM gave this process, if either did; else it
    stays torch's default (OMP_NUM_THREADS). Checkpoints hold the number.
    """
    # cuBLAS is deterministic only with a fixed workspace (cuBLAS library documentation, section 2.1.4).
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.backends.cudnn.deterministic = True
    # Benchmark mode chooses kernels by their speed, so the choice can differ from one process to the next (PyTorch
    # documentation, Reproducibility).
    torch.backends.cudnn.benchmark = False
    # A parallel sum rounds differently with another number of threads, and the last digits change.
    given = int(os.environ.get("RELAY_CPUS") or os.environ.get("SLURM_CPUS_PER_TASK") or 0)
    if given:
        torch.set_num_threads(given)
    torch.manual_seed(seed)
    # Ours draws from torch's alone; the user's code may draw from these.
    random.seed(seed)
    np.random.seed(seed % 2**32)


def reuse_freed_memory() -> None:
    """Let this process keep the memory that it frees, which makes training on a CPU about 1.4 times as fast.

    By default, glibc returns each large activation to the kernel, which gives it back page by page, filled with zeros.
    """
    set_malloc_thresholds(mmap_bytes=2**30, trim_bytes=2**30)


def set_malloc_thresholds(*, mmap_bytes: int, trim_bytes: int) -> None:
    """From which size on glibc takes memory by mmap, and how much free memory it keeps. Without glibc, do nothing."""
    with contextlib.suppress(AttributeError, OSError):
        libc = ctypes.CDLL(None)
        libc.mallopt(_M_MMAP_THRESHOLD, mmap_bytes)
        libc.mallopt(_M_TRIM_THRESHOLD, trim_bytes)
