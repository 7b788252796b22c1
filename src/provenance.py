"""Where a result comes from: code, versions, host, device."""

from __future__ import annotations

import functools
import os
import platform
import socket
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

from src.files import read_json

# In a copy of the code that was frozen for runs: where it was copied from.
FROZEN_VERSION = "code_version.json"
_PACKAGES = ("torch", "torchvision", "datasets", "submitit", "numpy")


@functools.cache
def code_version() -> dict[str, Any]:
    """The commit of the code that runs, and whether it has uncommitted changes; null where there is no git."""
    root = Path(__file__).resolve().parent.parent
    frozen = read_json(root / FROZEN_VERSION)
    if frozen is not None:
        return frozen

    def git(*words: str) -> str | None:
        try:
            answer = subprocess.run(
                ["git", "-C", str(root), *words], capture_output=True, text=True, timeout=30, check=True
            )
        except (OSError, subprocess.SubprocessError):
            return None
        return answer.stdout.strip()

    status = git("status", "--porcelain", "--untracked-files=no")
    return {"commit": git("rev-parse", "HEAD"), "dirty": None if status is None else bool(status)}


def provenance(device: str) -> dict[str, Any]:
    """Code, versions, host, and the device with its name, as this process sees them."""
    versions: dict[str, str | None] = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = None
    facts = {
        name: os.environ[name]
        for name in ("SLURM_JOB_ID", "SLURM_JOB_PARTITION", "CUDA_VISIBLE_DEVICES")
        if name in os.environ
    }
    return {
        "code": code_version(),
        "versions": versions,
        "host": socket.gethostname(),
        "device": device,
        "environment": facts,
        "command": sys.argv,
    }
