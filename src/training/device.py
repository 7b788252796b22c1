"""Which device a run computes on, and the settings under which it computes the same numbers every time."""

from __future__ import annotations

import os

import torch

from src.errors import ConfigError


def choose_device(name: str) -> torch.device:
    """`auto` takes CUDA, then MPS, then the CPU. Raises ConfigError if the named device is not there."""
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    device = torch.device(name)
    count = torch.cuda.device_count() if device.type == "cuda" else 1
    missing = device.type == "cuda" and (device.index or 0) >= count
    if missing or (device.type == "mps" and not torch.backends.mps.is_available()):
        raise ConfigError(f"train.device: {name!r} is not here ({count} CUDA devices are visible); use auto or cpu")
    return device


def compute_reproducibly(seed: int) -> None:
    """Seed torch and choose kernels that give equal results on equal input.

    Sums over CPU threads depend on how many there are: a run takes as many as the CPUs that the local profile or SLURM
    gave it, else torch's default (OMP_NUM_THREADS), and its checkpoints hold that number.
    """
    # cuBLAS is deterministic only with a fixed workspace (cuBLAS library documentation, section 2.1.4).
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.benchmark = False
    given = int(os.environ.get("RELAY_CPUS") or os.environ.get("SLURM_CPUS_PER_TASK") or 0)
    if given:
        torch.set_num_threads(given)
    torch.manual_seed(seed)


def random_state(device: torch.device) -> dict[str, torch.Tensor]:
    """The states of torch's global generators that a run on `device` draws from."""
    states = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        states["cuda"] = torch.cuda.get_rng_state(device)
    return states


def set_random_state(states: dict[str, torch.Tensor], device: torch.device) -> None:
    """Go on where `random_state` was taken."""
    torch.set_rng_state(states["cpu"])
    if device.type == "cuda" and "cuda" in states:
        torch.cuda.set_rng_state(states["cuda"], device)
