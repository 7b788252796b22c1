"""The files of a folder, in an order that is the same everywhere."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from pathlib import Path

from relay.errors import DataError


def walk(folder: Path, top: str = "", leave_out: Collection[Path] = ()) -> Iterator[tuple[str, os.DirEntry[str]]]:
    """Each file below `folder`/`top` with its path relative to `folder`, in order; hidden ones, too.

    Hidden folders and those in `leave_out` are not entered. A link to a folder comes like a file. Raises DataError if
    a folder cannot be read. os.scandir, and not Path or os.walk: 100,000 files are listed in 0.2 s and not in 1 s.
    """
    try:
        with os.scandir(folder / top) as found:
            entries = sorted(found, key=lambda entry: entry.name)
    except OSError as error:
        raise DataError(f"{error.filename}: cannot be read: {error.strerror}") from None
    for entry in entries:
        path = f"{top}/{entry.name}" if top else entry.name
        if not entry.is_dir(follow_symlinks=False):
            yield path, entry
        elif entry.name[0] != "." and Path(entry.path) not in leave_out:
            yield from walk(folder, path, leave_out)
