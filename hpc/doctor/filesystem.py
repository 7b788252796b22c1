"""Tests of the file system that holds the runs, from this machine: locks, atomic renames, fsync, free space."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from hpc.doctor.findings import Line
from relay.files import replace_file, sync_directory

# Prints whether this second process gets the lock of the file: taken, refused, or the error of the system.
_TRY_LOCK = """
import fcntl, sys
with open(sys.argv[1], "r+") as file:  # an exclusive lock on NFS needs a file open for writing (flock(2))
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        print("taken")
    except BlockingIOError:
        print("refused")
    except OSError as error:
        print(error.strerror)
"""
_LEAST_FREE_GIB = 5.0
_LEAST_FREE_INODES = 10_000


@dataclass(frozen=True)
class Mount:
    """The file system that a folder is on."""

    point: str
    kind: str
    options: frozenset[str]


def find_mount(text: str, folder: Path) -> Mount | None:
    """The mount that holds the absolute path `folder`. `text` is what /proc/mounts holds."""
    best: Mount | None = None
    for line in text.splitlines():
        fields = line.split()
        if len(fields) < 4:
            continue
        # /proc/mounts writes a space in a path as \040 (proc(5)).
        point = fields[1].encode("latin-1", "replace").decode("unicode_escape", "replace")
        # The deepest mount point wins. Of two mounts on one point the last one hides the other, hence >=.
        if folder.is_relative_to(point) and (best is None or len(point) >= len(best.point)):
            best = Mount(point, fields[2], frozenset(fields[3].split(",")))
    return best


def check_file_system(folder: Path, mount: Mount | None) -> Line:
    """Names the file system, and checks that its mount options give locks that hold on all machines."""
    if mount is None:
        return Line("ok", "runs", f"{folder}: /proc/mounts does not list its file system")
    finding = f"{folder}: {mount.kind}, mounted on {mount.point}"
    if mount.kind == "lustre" and "flock" not in mount.options:
        local = "localflock" in mount.options
        reach = "its locks hold on one machine only (localflock)" if local else "without the mount option flock"
        advice = "ask the site to mount it with -o flock, or set paths.runs_dir to a folder on another file system"
        return Line("problem", "runs", f"{finding}, {reach}", advice)
    if mount.kind.startswith("nfs") and mount.options & {"nolock", "local_lock=all", "local_lock=flock"}:
        advice = "ask the site for a mount without nolock and local_lock, or set paths.runs_dir to another file system"
        return Line("problem", "runs", f"{finding}, its locks hold on one machine only", advice)
    if mount.kind in ("tmpfs", "ramfs"):
        advice = "a reboot deletes all results: set paths.runs_dir to a folder on a disk"
        return Line("warning", "runs", f"{finding}, which is memory", advice)
    return Line("ok", "runs", finding)


def check_rename(folder: Path) -> Line:
    """Replace a file by a rename and fsync it, as every write of a run does."""
    target = folder / "replaced"
    try:
        replace_file(target, "old")
        with target.open() as before:
            # An open file must keep the old content: a reader never sees half of a new file.
            replace_file(target, "new")
            old, new = before.read(), target.read_text()
        sync_directory(folder)
    except OSError as error:
        advice = "set paths.runs_dir to a folder that you can write to, on a file system with rename and fsync"
        return Line("problem", "rename", f"a file cannot be replaced: {error.strerror}", advice)
    if new != "new" or old != "old":
        advice = "set paths.runs_dir to a folder on another file system"
        finding = f"a replaced file reads {new!r}, and {old!r} for a process that had it open"
        return Line("problem", "rename", finding, advice)
    return Line("ok", "rename", "files are replaced atomically; fsync of files and folders works")


def check_lock(folder: Path) -> Line:
    """Let a second process try to take a lock that this one holds, and again after it is released."""
    import fcntl

    path = folder / "locked"
    advice = "two processes could execute the same run: set paths.runs_dir to a folder on a file system with flock"
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            return Line("problem", "locks", f"flock: {error.strerror}", advice)
        while_held = _try_lock(path)
    when_free = _try_lock(path)
    if (while_held, when_free) != ("refused", "taken"):
        finding = f"a second process gets {while_held!r} while a lock is held, and {when_free!r} when it is free"
        return Line("problem", "locks", finding, advice)
    return Line("ok", "locks", "a held lock is refused to a second process, and granted after its release")


def _try_lock(path: Path) -> str:
    command = [sys.executable, "-I", "-c", _TRY_LOCK, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    return (done.stdout or done.stderr).strip()


def check_space(folder: Path, topic: str = "space") -> Line:
    """Free bytes and inodes of the whole file system. A quota of the user may be lower."""
    free_gib = shutil.disk_usage(folder).free / 2**30
    inodes = os.statvfs(folder)
    # btrfs and many network file systems create inodes on demand and report 0 of them.
    counted = f", {inodes.f_favail:,} inodes" if inodes.f_files else ""
    finding = f"{free_gib:,.0f} GiB{counted} free"
    if free_gib < _LEAST_FREE_GIB or (inodes.f_files and inodes.f_favail < _LEAST_FREE_INODES):
        advice = "a run that cannot save stops: free some space, or set paths.runs_dir to a larger file system"
        return Line("warning", topic, finding, advice)
    return Line("ok", topic, finding)
