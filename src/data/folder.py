"""Data source: a folder on this machine, in the layout of src/data/reading.py."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from relay.errors import DataError
from relay.user import expanded
from src.config.schema import Config
from src.data import hub
from src.data.reading import Opened, read_folder


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
    """The names of the splits, and a digest of the relative path, size and modification time of every file.

    Sizes and times, not content: every command computes this, and reading all images would delay each one. A file that
    is replaced by one of the same size and time is not seen; `contents` sees it.
    """
    folder = Path(locate(config.dataset.name))
    digest = hashlib.sha256()
    for path, facts in _files(folder, config):
        digest.update(json.dumps([str(path.relative_to(folder)), facts.st_size, facts.st_mtime_ns]).encode())
    split = config.dataset.split
    return {"splits": [split.train, split.valid], "files": digest.hexdigest()}


def contents(config: Config) -> str:
    """A digest of the content of every file. It reads all of them: only when they are decoded, and for --fresh."""
    digest = hashlib.sha256()
    for path, _ in _files(Path(locate(config.dataset.name)), config):
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def open_splits(config: Config, scratch: Path) -> Opened:
    """The two splits of the configuration. Raises DataError as `read_folder`."""
    folder = locate(config.dataset.name)
    split = config.dataset.split
    return read_folder(Path(folder), folder, (split.train, split.valid), scratch, whole=False)


def _files(folder: Path, config: Config) -> Iterator[tuple[Path, os.stat_result]]:
    """Every file of `folder` that is not hidden, in order, without Relay's own in dataset.root."""
    root = expanded(config.dataset.root).resolve()
    own = {root / "decoded", root / "hub"}
    for parent, subfolders, files in os.walk(folder, onerror=_cannot_read):
        subfolders[:] = sorted(name for name in subfolders if name[0] != "." and Path(parent, name) not in own)
        for name in sorted(name for name in files if name[0] != "."):
            path = Path(parent, name)
            try:
                facts = path.stat()
            except OSError as error:
                raise DataError(f"{path}: cannot be read: {error.strerror}") from None
            yield path, facts


def _cannot_read(error: OSError) -> None:
    raise DataError(f"{error.filename}: cannot be read: {error.strerror}")
