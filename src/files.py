"""Two ways to write a file that others may read at any moment: replace it whole, or append one complete line."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from src.errors import RunError

_TAIL_BYTES = 4096


class DiskError(RunError, OSError):
    """A file that cannot be written: the disk is full, its folder read-only or gone. Names the file and the reason."""

    def __init__(self, path: Path, error: OSError) -> None:
        OSError.__init__(self, error.errno, error.strerror or str(error), str(path))

    def __str__(self) -> str:
        return (
            f"{self.filename}: cannot be written: {self.strerror}; "
            "make room or give the directory back, then do the same again"
        )


def _no_check() -> None:
    """Anybody may write."""


def replace_file(path: Path, data: bytes | str, *, check: Callable[[], None] = _no_check) -> None:
    """Write `data` durably under a temporary name in the same directory, then put it in the place of `path`.

    Whoever reads sees the old content or the new one, also after a power cut. `check` may refuse by raising, at the
    last moment before the rename: writing may have taken minutes on a file system that hung. Raises DiskError (a full
    disk, a read-only or vanished directory). Where it raises, the old content is untouched and no temporary file left.
    """
    content = data.encode() if isinstance(data, str) else data
    with _naming(path):
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            Path(temporary).chmod(0o644)
            check()
            Path(temporary).replace(path)
        except BaseException:
            with contextlib.suppress(OSError):
                Path(temporary).unlink()
            raise
        sync_directory(path.parent)


@contextlib.contextmanager
def _naming(path: Path) -> Iterator[None]:
    # A write that finds the disk full names no file by itself.
    try:
        yield
    except OSError as error:
        raise DiskError(path, error) from error


def remove_leftovers(folder: Path) -> None:
    """Remove what writers that were killed left in `folder`. For whoever alone writes there now."""
    for temporary in folder.glob(".*.tmp"):
        with contextlib.suppress(OSError):
            temporary.unlink()


def sync_directory(path: Path) -> None:
    """Make renames inside `path` durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def append_lines(path: Path, records: Sequence[Mapping[str, Any]], *, check: Callable[[], None] = _no_check) -> int:
    """Append one JSON line per record, durably, in one write. Returns the size of the file in bytes.

    A line that an earlier crash left incomplete is ended first, so that it cannot swallow the next one. `check` may
    refuse by raising, before anything is written. Raises DiskError; a part of the lines may be there all the same.
    """
    # What is no character, such as a byte of a file name that is not UTF-8, becomes "?": no other reader takes it.
    text = b"".join(json.dumps(record, ensure_ascii=False).encode(errors="replace") + b"\n" for record in records)
    with _naming(path):
        check()
        with path.open("ab+") as file:
            # Again: opening may have hung until the file at this path was another one.
            check()
            new = file.tell() == 0
            if not new:
                file.seek(-1, os.SEEK_END)
                if file.read(1) != b"\n":
                    text = b"\n" + text
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
            size = file.tell()
        if new:
            sync_directory(path.parent)
        return size


Record = dict[str, Any]
# Of a file, a text in it, and the number of the line that it is: the record, or None where it is not a whole one.
Parse = Callable[[Path, bytes, int | None], Record | None]


def any_object(path: Path, text: bytes, line: int | None = None) -> Record | None:
    """A JSON object of any shape."""
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return content if isinstance(content, dict) else None


def read_lines(path: Path, parse: Parse = any_object) -> list[Record]:
    """The complete JSON lines of a file, in order; none where there is no file. Incomplete lines are passed over."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return []
    found = (parse(path, text, number) for number, text in enumerate(content.split(b"\n"), start=1) if text)
    return [record for record in found if record is not None]


def size_of(path: Path) -> int:
    """Bytes in a file, 0 where there is none; it is opened, since NFS may tell others than an opener the past."""
    try:
        with path.open("rb") as file:
            return file.seek(0, os.SEEK_END)
    except FileNotFoundError:
        return 0


def last_line(path: Path, parse: Parse = any_object) -> Record | None:
    """The newest complete JSON line of a file, found from its end; None where there is none."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - _TAIL_BYTES))
            lines = file.read().split(b"\n")
    except FileNotFoundError:
        return None
    for text in reversed(lines):
        try:
            record = parse(path, text, None) if text else None
        except RunError:
            read_lines(path, parse)  # Says in which line.
            raise
        if record is not None:
            return record
    return None


def read_json(path: Path, parse: Parse = any_object) -> Record | None:
    """The JSON object of a file, or None where there is no file or no whole object in it."""
    try:
        text = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None
    return parse(path, text, None)
