"""The current folder of a program: what it reads comes from the frozen project, what it writes stays in the run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path


def make_work_folder(work: Path, project: Path, writes: Sequence[str]) -> None:
    """Link each entry of the frozen `project` into the folder `work`; what the program has written there stays.

    Folders named in `writes`, and those of the project that hold nothing but hidden files, become real ones.
    """
    work.mkdir(exist_ok=True)
    for entry in sorted(project.iterdir()):
        link = work / entry.name
        if entry.name in writes or (entry.is_dir() and not entry.is_symlink() and _is_empty(entry)):
            continue
        if link.is_symlink() and link.readlink() != entry:
            # Of another version of the project: the user has asked for the current one since.
            link.unlink()
        if not link.exists() and not link.is_symlink():
            link.symlink_to(entry)
    empty = [
        entry.name for entry in project.iterdir() if entry.is_dir() and not entry.is_symlink() and _is_empty(entry)
    ]
    for name in (*writes, *empty):
        (work / name).mkdir(parents=True, exist_ok=True)


def _is_empty(folder: Path) -> bool:
    return all(path.name.startswith(".") for path in folder.rglob("*") if not path.is_dir())
