"""Which files of a user's project are frozen with a sweep: those that git tracks or does not ignore, within limits.

Without git, its text files. Never: the folders in which results go, hidden folders, Python's caches, and virtual
environments.
"""

from __future__ import annotations

import os
import stat
import subprocess
from collections.abc import Sequence
from pathlib import Path

from relay.errors import ConfigError
from relay.text import counted, shortlist

# Larger files are data: they are linked.
LARGEST_BYTES = 2 * 2**20
LARGEST_PROJECT_BYTES = 50 * 2**20
# Files that are looked at before giving up: a project of so many is a data set.
_MOST_FILES = 50_000
_TEXT_BYTES = 8192


def project_files(root: Path, links: Sequence[str], apart: Sequence[Path]) -> list[str]:
    """The files below `root` to freeze, as paths from there, in order.

    `links`: files and folders that are linked instead; `apart`: those that never belong to it. Raises ConfigError for
    files that are too large, that cannot be read, or that are links which leave the project.
    """
    if not root.is_dir():
        raise ConfigError(f"project.path: {root}: no such folder")
    listing = _Listing(root, links, [os.path.realpath(path) for path in apart])
    names = listing.names()
    large: list[str] = []
    total = 0
    for name in names:
        size = _size(root, name)
        total += size
        if size > LARGEST_BYTES:
            large.append(f"{name} ({size / 2**20:,.0f} MiB)")
    if large:
        raise ConfigError(
            f"project: {counted(len(large), 'file')} {'is' if len(large) == 1 else 'are'} too large to freeze: "
            f"{shortlist(large)}; at most {LARGEST_BYTES // 2**20} MiB each. Add them to .gitignore, and to "
            "project.links if runs read them"
        )
    if total > LARGEST_PROJECT_BYTES:
        raise ConfigError(
            f"project: {root} has {total / 2**20:,.0f} MiB in {len(names)} files, and at most "
            f"{LARGEST_PROJECT_BYTES // 2**20} MiB are frozen; add what runs only read to project.links"
        )
    return sorted(names)


class _Listing:
    """The files of a project. `outside`: the real paths of files and folders that do not belong to it."""

    def __init__(self, root: Path, links: Sequence[str], outside: Sequence[str]) -> None:
        self._root, self._links, self._outside = root, links, outside

    def names(self) -> list[str]:
        """Those that git tracks or does not ignore; without git, the text files."""
        of_git = _listed_by_git(self._root)
        if of_git is None:
            return self._text_files(".")
        names: list[str] = []
        for name in of_git:
            path = self._root / name
            if path.is_dir() and not path.is_symlink():
                # A submodule, or a repository of its own.
                names += self._text_files(name.rstrip("/"))
            elif (path.exists() or path.is_symlink()) and self._belongs(name):
                names.append(name)
        return names

    def _belongs(self, name: str) -> bool:
        folders = Path(name).parent.parts
        hidden = any(part.startswith(".") or part == "__pycache__" for part in folders) or name.endswith(".pyc")
        linked = any(name == link or name.startswith(f"{link.rstrip('/')}/") for link in self._links)
        parents = [self._root.joinpath(*folders[: count + 1]) for count in range(len(folders))]
        apart = os.path.realpath(self._root / name) in self._outside or any(self._is_apart(each) for each in parents)
        return not (hidden or linked or apart)

    def _is_apart(self, folder: Path) -> bool:
        real = os.path.realpath(folder)
        is_sweep = (folder / "sweep.yaml").exists() and (folder / "cells.jsonl").exists()
        # What `relay.current()` has written for a program that ran alone.
        ran_alone = folder.name.startswith("relay_alone_")
        return real in self._outside or (folder / "pyvenv.cfg").exists() or is_sweep or ran_alone

    def _text_files(self, below: str) -> list[str]:
        found: list[str] = []
        for parent, folders, files in os.walk(self._root / below):
            here = Path(parent)
            links = [name for name in folders if (here / name).is_symlink()]
            folders[:] = [
                name
                for name in folders
                if not (name.startswith(".") or name == "__pycache__" or self._is_apart(here / name))
            ]
            names = [str((here / name).relative_to(self._root)) for name in files]
            found += [name for name in names if self._belongs(name) and _is_text(self._root / name)]
            found += [name for link in links if self._belongs(name := str((here / link).relative_to(self._root)))]
            if len(found) > _MOST_FILES:
                raise ConfigError(
                    f"project.path: {self._root}: has more than {_MOST_FILES:,} files; make it a git repository whose "
                    ".gitignore names the data, or give the folder of the code"
                )
        return found


def _listed_by_git(root: Path) -> list[str] | None:
    """What git tracks and does not ignore below `root`; None without git, or outside of a repository."""
    # Independent of variables with which git calls its hooks.
    kept = {name: value for name, value in os.environ.items() if name[:4] != "GIT_"}
    command = ["git", "-C", str(root), "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", "."]
    try:
        done = subprocess.run(command, env=kept, capture_output=True, timeout=60, check=False)
    except (OSError, subprocess.SubprocessError):
        return None
    if done.returncode:
        return None
    return list(dict.fromkeys(os.fsdecode(each) for each in done.stdout.split(b"\0") if each))


def _is_text(path: Path) -> bool:
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            return False
        with path.open("rb") as file:
            return b"\0" not in file.read(_TEXT_BYTES)
    except OSError as error:
        raise _unreadable(path, error) from None


def _size(root: Path, name: str) -> int:
    path = root / name
    try:
        # Not Path.resolve, which fails for a link to itself.
        real = os.path.realpath(path)
        if path.is_symlink() and not Path(real).is_relative_to(os.path.realpath(root)):
            raise ConfigError(f"project: {name}: is a link that leaves the project, to {real}; add it to project.links")
        facts = path.stat()
        if not stat.S_ISREG(facts.st_mode):
            return 0
        with path.open("rb"):
            return facts.st_size
    except OSError as error:
        raise _unreadable(path, error) from None


def _unreadable(path: Path, error: OSError) -> ConfigError:
    return ConfigError(
        f"project: {path}: cannot be read, and every run gets a copy of the project: {error.strerror}; repair it, or "
        "move it out of the project"
    )
