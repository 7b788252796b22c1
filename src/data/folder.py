"""Data source: a folder on this machine, of tables (src/data/reading.py) or of classes (src/data/class_folders.py)."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from relay.errors import DataError
from relay.user import expanded
from src.config.schema import Config
from src.data import hub
from src.data.class_folders import has_class_folders, open_class_folders
from src.data.files import walk
from src.data.reading import Opened, count_rows, read_folder


def recognizes(name: str) -> bool:
    """Whether `name` is a path or a folder here. Raises DataError if it could also be a Hub name."""
    if name.startswith(("/", "./", "../", "~")) or name in (".", "..") or name.count("/") > 1:
        return True
    if not hub.recognizes(name):
        return expanded(name).is_dir()
    if expanded(name).exists():
        raise DataError(
            f"dataset.name: {name!r} is a folder here and could be a Hub name; "
            f"set dataset.source=folder or dataset.source=hub, or write the folder as ./{name}"
        )
    return False


def locate(name: str) -> str:
    """The folder's full path. Raises DataError if there is no such folder."""
    folder = expanded(name)
    if not folder.is_dir():
        raise DataError(f"dataset.name: there is no folder {folder.absolute()}; set it to one that exists")
    return str(folder.resolve())


def label(name: str) -> str:
    """The folder's name without the folders around it."""
    return Path(name).name


def identity(config: Config) -> dict[str, Any]:
    """A digest of the relative path, size and modification time of every file.

    Sizes and times, not content: every command computes this, and reading all images would delay each one. A file that
    is replaced by one of the same size and time is not seen; `contents` sees it.
    """
    digest = hashlib.sha256()
    for path, entry in _files(config):
        try:
            facts = entry.stat()
            # What a link to a folder has comes at its own place, if it is inside.
            links_to = str(Path(entry.path).readlink()) if entry.is_symlink() and entry.is_dir() else ""
        except OSError as error:
            raise DataError(f"{entry.path}: cannot be read: {error.strerror}") from None
        # No path has a NUL.
        digest.update(f"{path}\0{facts.st_size} {facts.st_mtime_ns} {links_to}\0".encode(errors="surrogateescape"))
    return {"files": digest.hexdigest()}


def contents(config: Config) -> str:
    """A digest of the content of every file. It reads all of them: only when they are decoded, and for --fresh."""
    digest = hashlib.sha256()
    for _, entry in _files(config):
        if entry.is_file():
            with Path(entry.path).open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def open_splits(config: Config, scratch: Path) -> Opened:
    """The splits of the configuration. Raises DataError as `read_folder` or `open_class_folders`."""
    folder, own = Path(locate(config.dataset.name)), _own(config)
    if not _has_tables(folder) and has_class_folders(folder, own):
        return open_class_folders(folder, config.dataset, own)
    return read_folder(folder, str(folder), config.dataset, scratch, whole=False)


def count(config: Config) -> int | None:
    """How many images the splits of the configuration have, see `count_rows`. Raises DataError as `open_splits`."""
    folder, own = Path(locate(config.dataset.name)), _own(config)
    if not _has_tables(folder) and has_class_folders(folder, own):
        return sum(map(len, open_class_folders(folder, config.dataset, own).splits))
    return count_rows(folder, str(folder), config.dataset, whole=False)


def _has_tables(folder: Path) -> bool:
    """Whether the folder has parquet files, or a data set card that names files."""
    card = folder / "README.md"
    if card.is_file() and "data_files" in card.read_text(errors="replace"):
        return True
    return any(any(folder.glob(pattern)) for pattern in ("*.parquet", "*/*.parquet"))


def _files(config: Config) -> Iterator[tuple[str, os.DirEntry[str]]]:
    """Every file of the folder that is not hidden, see `walk`."""
    folder = Path(locate(config.dataset.name))
    return ((path, entry) for path, entry in walk(folder, leave_out=_own(config)) if entry.name[0] != ".")


def _own(config: Config) -> tuple[Path, ...]:
    """Relay's own folders in dataset.root, which may be the folder itself."""
    root = expanded(config.dataset.root).resolve()
    return root / "decoded", root / "hub"
