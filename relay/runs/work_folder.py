"""The current folder of a program: what it reads comes from the frozen project, what it writes stays in the run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path


def make_work_folder(work: Path, project: Path, writes: Sequence[str]) -> None:
    """Link each entry of the frozen `project` into the folder `work`; what the program has written there stays.

    Folders named in `writes`, those that they lie in, and those of the project that hold nothing but hidden files, are
    real ones. Links to other versions of the project are replaced, or removed with their file.
    """
    _fill(work, project, [Path(name).parts for name in writes], project.parent)


def _fill(folder: Path, source: Path | None, writes: Sequence[Sequence[str]], projects: Path) -> None:
    """`source`: None for a folder to write to, in which nothing of the project is."""
    folder.mkdir(exist_ok=True)
    entries = {entry.name: entry for entry in source.iterdir()} if source and source.is_dir() else {}
    for link in folder.iterdir():
        if link.is_symlink() and link.readlink().is_relative_to(projects) and link.readlink() != entries.get(link.name):
            link.unlink()
    below: dict[str, list[Sequence[str]]] = {}
    for first, *rest in writes:
        below.setdefault(first, []).append(rest)
    for name in sorted(entries.keys() | below.keys()):
        target, entry = folder / name, entries.get(name)
        if name in below:
            _fill(target, entry if all(below[name]) else None, [rest for rest in below[name] if rest], projects)
        elif entry is not None and _is_empty(entry):
            target.mkdir(exist_ok=True)
        elif entry is not None and not target.exists() and not target.is_symlink():
            target.symlink_to(entry)


def _is_empty(folder: Path) -> bool:
    """Whether it is a folder that holds nothing but hidden files."""
    if not folder.is_dir() or folder.is_symlink():
        return False
    return all(path.name.startswith(".") for path in folder.rglob("*") if path.is_symlink() or not path.is_dir())
