"""Which files are the code: those that an import statement can name, and the YAML files that they read."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from relay.errors import RunError

LAYERS = ("relay", "src", "jobs", "hpc")


def code_files(root: Path) -> list[str]:
    """The Python and YAML files below `root`, as paths from there, in order.

    Without what editors and file systems add: hidden files and folders, backups, caches, and every other
    name that is not an identifier (of a YAML file, identifiers with dots between them: `texts.en.yaml`). Links are
    followed, as Python follows them. Raises RunError if a file cannot be code: it is not a regular file, its link
    leads nowhere, or it cannot be read.
    """
    return sorted(name for layer in LAYERS for name in _below(root, layer, frozenset()))


def _below(root: Path, folder: str, parents: frozenset[tuple[int, int]]) -> Iterator[str]:
    try:
        facts = (root / folder).stat()
        # A link to a folder that it is in has no end.
        inside = parents | {(facts.st_dev, facts.st_ino)}
        entries = [] if inside == parents else list(os.scandir(root / folder))
    except FileNotFoundError:
        return
    except OSError as error:
        raise _not_code(root / folder, f"cannot be read: {error.strerror}") from None
    for entry in entries:
        stem, suffix = os.path.splitext(entry.name)  # noqa: PTH122
        path = f"{folder}/{entry.name}"
        words = stem.split(".") if suffix == ".yaml" else [stem]
        if not all(word.isidentifier() for word in words) or stem == "__pycache__":
            continue
        # Not entry.is_dir(), which raises OSError for a link to itself.
        is_folder = os.path.isdir(root / path)  # noqa: PTH112
        if is_folder and not suffix:
            yield from _below(root, path, inside)
        elif suffix in (".py", ".yaml") and not is_folder:
            _check(root / path)
            yield path


def _check(path: Path) -> None:
    try:
        # Before it is opened: that of a pipe would wait for a writer.
        if not stat.S_ISREG(path.stat().st_mode):
            raise _not_code(path, "is not a regular file")
        path.open("rb").close()
    except OSError as error:
        link = "is a link that " if path.is_symlink() else ""
        raise _not_code(path, f"{link}cannot be read: {error.strerror}") from None


def _not_code(path: Path, reason: str) -> RunError:
    return RunError(f"{path}: {reason}, and every run gets a copy of all code; repair it, or move it out of the code")
