"""Provenance of a result: code, package versions, environment, host, device and job."""

from __future__ import annotations

import functools
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

from relay.files import read_json
from relay.log import log
from relay.runs.code_files import LAYERS, code_files
from relay.runs.environment import Environment, package_versions

# The file in a code snapshot with the version of the checkout it was taken from.
SNAPSHOT_VERSION = "code_version.json"
_ROOT = Path(__file__).resolve().parents[2]


class _GitError(Exception):
    """Git could not answer. The message says why."""


@functools.cache
def code_version(root: Path = _ROOT) -> dict[str, Any]:
    """`commit` of the code below `root`, and `dirty`: whether the code differs from it.

    Both are None if they are not known, and `unknown` says why.
    """
    saved = read_json(root / SNAPSHOT_VERSION)
    if saved is not None:
        return saved
    try:
        # A project in the working tree of another repository, such as one of the home directory: not its code.
        if not _git(root, "ls-files", "--", *LAYERS):
            raise _GitError("git does not track the code")
        commit = _git(root, "rev-parse", "HEAD").decode().strip()
        return {"commit": commit, "dirty": bool(_changes(root) or _new_files(root))}
    except _GitError as reason:
        return {"commit": None, "dirty": None, "unknown": str(reason)}


def code_diff(root: Path = _ROOT) -> bytes:
    """The uncommitted changes of the code below `root`, for `git apply`, after a list of new files, whose content is in
    the snapshot. Empty if the commit is not known.
    """
    if code_version(root)["commit"] is None:
        return b""
    try:
        # Bytes, because a trailing blank line is part of the patch.
        return b"".join(b"new file: %s\n" % name for name in _new_files(root)) + _changes(root)
    except _GitError as reason:
        log.warning(f"{root}: the uncommitted changes of the code are not recorded: {reason}")
        return b""


def _changes(root: Path) -> bytes:
    # Independent of the user's git settings.
    plain = ("--no-color", "--no-ext-diff", "--no-textconv", "--src-prefix=a/", "--dst-prefix=b/")
    return _git(root, "diff", *plain, "HEAD", "--", *LAYERS)


def _new_files(root: Path) -> list[bytes]:
    """The files of the code that git does not track, ignored ones included: a snapshot has those, too."""
    code = {os.fsencode(name) for name in code_files(root)}
    return [name for name in _git(root, "ls-files", "-z", "--others", "--", *LAYERS).split(b"\0") if name in code]


def _git(root: Path, *words: str) -> bytes:
    """The output of git for the repository that `root` is in. Raises _GitError."""
    # Variables such as GIT_DIR, which git sets for its hooks, name another repository. This one has git's own programs.
    kept = {name: value for name, value in os.environ.items() if name == "GIT_EXEC_PATH" or name[:4] != "GIT_"}
    command = ["git", "-C", str(root), *words]
    try:
        done = subprocess.run(command, env={**kept, "LC_ALL": "C"}, capture_output=True, timeout=30, check=False)
    except (OSError, subprocess.SubprocessError) as error:
        raise _GitError(f"git cannot be run: {error}") from None
    if done.returncode:
        raise _GitError(" ".join(done.stderr.decode(errors="replace").split()) or f"git ends with {done.returncode}")
    return done.stdout


def provenance(device: str, environment: Environment) -> dict[str, Any]:
    """Code, package versions, environment, host, device and job, as this process sees them."""
    facts = {
        name: os.environ[name]
        for name in ("SLURM_JOB_ID", "SLURM_JOB_PARTITION", "CUDA_VISIBLE_DEVICES")
        if name in os.environ
    }
    return {
        "code": code_version(),
        "versions": package_versions(),
        "environment": environment,
        "host": socket.gethostname(),
        "device": device,
        "job": facts,
        "command": sys.argv,
    }
