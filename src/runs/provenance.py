"""Provenance of a result: code, package versions, host and device."""

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

# The file in a code snapshot with the version of the checkout it was taken from.
SNAPSHOT_VERSION = "code_version.json"
_ROOT = Path(__file__).resolve().parents[2]
_CODE = ("src", "jobs", "hpc")
_PACKAGES = ("torch", "torchvision", "datasets", "numpy")


@functools.cache
def code_version(root: Path = _ROOT) -> dict[str, Any]:
    """The commit of the code below `root`, and whether it has uncommitted changes or files. None without git."""
    saved = read_json(root / SNAPSHOT_VERSION)
    if saved is not None:
        return saved
    status = _git(root, "status", "--porcelain", "--untracked-files=normal", "--", *_CODE)
    commit = _git(root, "rev-parse", "HEAD")
    return {"commit": commit and commit.decode().strip(), "dirty": None if status is None else bool(status)}


def code_diff(root: Path = _ROOT) -> bytes:
    """The uncommitted changes of the code below `root`, for `git apply`, after a list of new files, whose content is in
    the snapshot. Empty without git.
    """
    # Independent of the user's git settings. Bytes, because a trailing blank line is part of the patch.
    plain = ("--no-color", "--no-ext-diff", "--no-textconv", "--src-prefix=a/", "--dst-prefix=b/")
    changed = _git(root, "diff", *plain, "HEAD", "--", *_CODE) or b""
    new = _git(root, "ls-files", "--others", "--exclude-standard", "--", *_CODE) or b""
    return b"".join(b"new file: %s\n" % name for name in new.splitlines()) + changed


def _git(root: Path, *words: str) -> bytes | None:
    try:
        return subprocess.run(["git", "-C", str(root), *words], capture_output=True, timeout=30, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return None


@functools.cache
def installed_versions() -> dict[str, str | None]:
    """The versions of Python and of each package that affects results; None if it is not installed."""
    versions: dict[str, str | None] = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = None
    return versions


def provenance(device: str) -> dict[str, Any]:
    """Code, package versions, host, device and job, as this process sees them."""
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
