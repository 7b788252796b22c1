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

# In a snapshot of the code: the version of the checkout that it was taken from.
SNAPSHOT_VERSION = "code_version.json"
_ROOT = Path(__file__).resolve().parent.parent
_PACKAGES = ("torch", "torchvision", "datasets", "submitit", "numpy")


@functools.cache
def code_version(root: Path = _ROOT) -> dict[str, Any]:
    """The commit of the code below `root`, and whether it has uncommitted changes; null where there is no git."""
    kept = read_json(root / SNAPSHOT_VERSION)
    if kept is not None:
        return kept
    status = _git(root, "status", "--porcelain", "--untracked-files=no")
    return {"commit": _git(root, "rev-parse", "HEAD"), "dirty": None if status is None else bool(status)}


def code_diff(root: Path = _ROOT) -> str:
    """What the code below `root` has changed against its commit, new files by their names; "" where there is no git."""
    changed = _git(root, "diff", "HEAD", "--", "src", "jobs", "hpc") or ""
    new = _git(root, "ls-files", "--others", "--exclude-standard", "--", "src", "jobs", "hpc") or ""
    return "".join(f"new file: {name}\n" for name in new.splitlines()) + (f"{changed}\n" if changed else "")


def _git(root: Path, *words: str) -> str | None:
    try:
        answer = subprocess.run(
            ["git", "-C", str(root), *words], capture_output=True, text=True, timeout=30, check=True
        )
    except (OSError, ValueError, subprocess.SubprocessError):
        return None
    return answer.stdout.strip()


@functools.cache
def installed_versions() -> dict[str, str | None]:
    """The version of Python and of each package that decides a result; null for one that is not installed."""
    versions: dict[str, str | None] = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = None
    return versions


def provenance(device: str) -> dict[str, Any]:
    """Code, versions, host, and the device with its name, as this process sees them."""
    facts = {
        name: os.environ[name]
        for name in ("SLURM_JOB_ID", "SLURM_JOB_PARTITION", "CUDA_VISIBLE_DEVICES")
        if name in os.environ
    }
    return {
        "code": code_version(),
        "versions": installed_versions(),
        "host": socket.gethostname(),
        "device": device,
        "environment": facts,
        "command": sys.argv,
    }
