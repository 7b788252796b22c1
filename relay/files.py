"""The two safe ways to write a file that others may be reading: replace it atomically, or append complete lines."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from relay.errors import RunError

_TAIL_BYTES = 4096


class DiskError(RunError, OSError):
    """A file cannot be written: the disk is full, or its folder is read-only or gone. Names the file and the reason."""

    def __init__(self, path: Path, error: OSError) -> None:
        OSError.__init__(self, error.errno, error.strerror or str(error), str(path))

    def __str__(self) -> str:
        return (
            f"{self.filename}: cannot be written: {self.strerror}; "
            "free some space or restore the directory, then run the same command again"
        )


def _no_check() -> None:
    """The default `check`: no restriction."""


def replace_file(path: Path, data: bytes | str, *, check: Callable[[], None] = _no_check) -> None:
    """Write `data` to a temporary file in the same directory, fsync it, and rename it to `path`.

    Readers see either the old or the new content, even after a power cut. `check` may veto by raising just before the
    rename: on a hung file system, writing may have taken minutes. Raises DiskError (full disk, read-only or missing
    directory). On any error the old content is untouched and no temporary file remains.
    """
    content = data.encode() if isinstance(data, str) else data
    with _naming(path):
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(content)
                file.flush()
                # Without it, the rename may reach the disk before the data: an empty file after a power cut.
                os.fsync(file.fileno())
            # mkstemp(3) creates files that only their owner can read.
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
    # The OSError of a write to a full disk has no file name.
    try:
        yield
    except OSError as error:
        raise DiskError(path, error) from error


def remove_leftovers(folder: Path) -> None:
    """Remove the temporary files of killed writers. Only safe while nobody else writes to `folder`."""
    for temporary in folder.glob(".*.tmp"):
        with contextlib.suppress(OSError):
            temporary.unlink()


def remove_tree(path: Path) -> None:
    """Remove a folder, also if folders in it are read-only. What cannot be removed stays."""
    for parent, _, _ in os.walk(path):
        with contextlib.suppress(OSError):
            Path(parent).chmod(0o755)
    shutil.rmtree(path, ignore_errors=True)


def sync_directory(path: Path) -> None:
    """Make renames inside `path` durable."""
    # fsync(2): syncing a file does not sync its entry in the directory.
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def encode_lines(records: Sequence[Mapping[str, Any]]) -> bytes:
    """One JSON line per record, as `append_lines` writes them."""
    # Lone surrogates, such as the bytes of a file name that is not UTF-8, become "?": other JSON readers reject them.
    return b"".join(json.dumps(record, ensure_ascii=False).encode(errors="replace") + b"\n" for record in records)


def append_lines(path: Path, records: Sequence[Mapping[str, Any]], *, check: Callable[[], None] = _no_check) -> int:
    """Append one JSON line per record in a single write, and fsync. Returns the size of the file in bytes.

    An incomplete last line, which a crash has left, is removed first: a line that is not JSON is then damage, unless it
    is the last one. `check` may veto by raising before anything is written. Raises DiskError, in which case some of the
    lines may be written.
    """
    text = encode_lines(records)
    with _naming(path):
        check()
        with path.open("ab+") as file:
            # Again: open() may have hung for so long that another process took over in between.
            check()
            new = file.tell() == 0
            if not new:
                file.seek(-1, os.SEEK_END)
                if file.read(1) != b"\n":
                    text = _end_last_line(file, path) + text
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
            size = file.tell()
        if new:
            sync_directory(path.parent)
        return size


def _end_last_line(file: BinaryIO, path: Path) -> bytes:
    """Remove an incomplete last line. Returns what ends the line before the next one."""
    file.seek(0)
    content = file.read()
    last = content.rpartition(b"\n")[2]
    if any_object(path, last) is not None:
        return b"\n"  # Only the line break was lost.
    file.truncate(len(content) - len(last))
    return b""


Record = dict[str, Any]
# (file, text, line number) -> the record, or None if the text is not one.
Parse = Callable[[Path, bytes, int | None], Record | None]


def any_object(path: Path, text: bytes, line: int | None = None) -> Record | None:
    """Any JSON object; None for anything else."""
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return content if isinstance(content, dict) else None


def read_lines(path: Path, parse: Parse = any_object) -> list[Record]:
    """The JSON lines of a file, in order; [] if there is no file. An incomplete last line is skipped: a crash left it,
    or another process is writing it. Raises RunError if any other line is damaged.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return []
    lines = content.split(b"\n")
    if any_object(path, lines[-1]) is None:
        lines.pop()
    return [_parsed(path, text, number, parse) for number, text in enumerate(lines, start=1) if text]


def _parsed(path: Path, text: bytes, number: int, parse: Parse) -> Record:
    record = parse(path, text, number)
    if record is None:
        raise RunError(f"{path}: line {number}: is no JSON object; it was damaged: restore it, or remove the line")
    return record


def size_of(path: Path) -> int:
    """The size of a file in bytes, 0 if there is none. Opened first, because NFS attribute caching can return a stale
    size.
    """
    try:
        with path.open("rb") as file:
            return file.seek(0, os.SEEK_END)
    except FileNotFoundError:
        return 0


def last_line(path: Path, parse: Parse = any_object) -> Record | None:
    """The last complete JSON line of a file, read from its end; None if there is none. Raises RunError if the end of
    the file is damaged.
    """
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - _TAIL_BYTES))
            tail = file.read()
    except FileNotFoundError:
        return None
    try:
        # The first of the lines may have begun before the tail.
        records = (parse(path, text, None) for text in reversed(tail.split(b"\n")[:-1]) if text)
        record = next(records, None)
    except RunError:
        record = None
    # Slower, but it has every case and names the line.
    return record or next(iter(reversed(read_lines(path, parse))), None)


def read_json(path: Path, parse: Parse = any_object) -> Record | None:
    """The JSON object in a file; None if there is no file or no complete object in it."""
    try:
        text = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None
    return parse(path, text, None)
