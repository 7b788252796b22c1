"""The cache of decoded images on disk: built once, then found by every run.

There is one folder per source, revision, size and transform, below <dataset.root>/decoded. It is built under a file
lock in a temporary folder and renamed when it is complete; meta.json, written last, has the size and SHA-256 of every
file. Reading a complete cache takes no lock and imports neither datasets nor PIL nor torchvision.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import socket
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from relay.errors import DataError, RelayError
from relay.files import sync_directory
from relay.log import log
from relay.user import expanded, why_not_writable
from src.config.project import as_frozen, explained
from src.config.schema import Config
from src.data import decoding
from src.data.build import build, build_apart, decoded_size, file_digest, files_of, gigabytes, unwritable
from src.data.sources import DataSource, source_of

_FORMAT = 3  # of the arrays and meta.json; part of the folder's key


def ensure(config: Config, *, build: bool = True, look_closer: bool = False) -> Path:
    """The folder with the decoded images of a configuration, built first if it is missing.

    `look_closer`: built again if the content of a file of the source has changed, and not only sizes and times. Raises
    DataError, also if it is missing and `build` is false.
    """
    source, identity, folder = _located(config)
    # Without the lock: a complete cache never changes, and its disk may be read-only.
    contents = source.contents(config) if look_closer else None
    problem = _problem(folder, contents, source.replaced)
    if problem is not None:
        if not build:
            raise DataError(f"{config.dataset.name}: its images are not decoded here ({problem})")
        with _locked(folder):
            _build_unless_whole(config, source, identity, folder, contents)
    return folder


def size_of(config: Config) -> int | None:
    """How many bytes the decoded images of a configuration take; None if that is not known before they are read.

    Raises DataError if the source does not have the splits.
    """
    images = source_of(config.dataset).count(config)
    return None if images is None else decoded_size(config, images)


def to_decode(config: Config) -> str:
    """What `ensure` would decode, as text; "" if it is there. Raises DataError as `size_of`."""
    _, _, folder = _located(config)
    if (folder / "meta.json").is_file():
        return ""
    size = size_of(config)
    what = f"{config.dataset.name}: its images" if size is None else f"{config.dataset.name}: {gigabytes(size)}"
    return f"{what} will be decoded into {folder.parent}"


def _located(config: Config) -> tuple[DataSource, dict[str, Any], Path]:
    """The source of a configuration, what its decoded images depend on, and their folder. Raises DataError."""
    source = source_of(config.dataset)
    identity = {
        "source": source.kind,
        "name": source.locate(config.dataset.name),
        **source.identity(config),
        "splits": list(config.dataset.split.names),
        "columns": config.dataset.columns.model_dump(),
        "class_names": config.dataset.class_names,
        "format": _FORMAT,
        "decoder": decoding.VERSION,
        "resize": list(config.preprocess.resize),
        "mode": config.preprocess.mode,
    }
    return source, identity, _place(config, source, identity)


def read_meta(folder: Path) -> dict[str, Any]:
    """The content of meta.json in a complete cache.

    `splits`: the names of those that are decoded, in the order of their files. `facts`: by these names, see
    `_decode_split`. `other_splits`: the names of those that the source also has. `contents`: the digest of its files,
    see `DataSource.contents`. Also `class_names`, `identity` and `files`.
    """
    meta: dict[str, Any] = json.loads((folder / "meta.json").read_bytes())
    return meta


def content_digest(meta: Mapping[str, Any]) -> str:
    """A digest of the images and labels, 16 hex digits: the same bytes give the same digest, whatever their source."""
    names = files_of(len(meta["splits"]))
    sums = [meta["files"][name]["sha256"] for name in names if "digests" not in name]
    return hashlib.sha256("\n".join(sums).encode()).hexdigest()[:16]


class Arrays(NamedTuple):
    """A decoded split: uint8 (N, C, H, W), memory-mapped; int64 (N,); uint64 (N,), equal for images of equal pixels."""

    images: np.memmap[Any, np.dtype[np.uint8]]
    labels: npt.NDArray[np.int64]
    digests: npt.NDArray[np.uint64]


def read_arrays(folder: Path) -> dict[str, Arrays]:
    """The decoded splits, by the names that they have in the source: those of `Split.names`, in this order."""
    return {
        name: Arrays(
            np.load(folder / f"{number}_images.npy", mmap_mode="r"),
            *(np.load(folder / f"{number}_{array}.npy") for array in ("labels", "digests")),
        )
        for number, name in enumerate(read_meta(folder)["splits"])
    }


def _place(config: Config, source: DataSource, identity: dict[str, Any]) -> Path:
    """The cache folder: a readable name, and a key of everything its content depends on."""
    key = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16]
    height, width = config.preprocess.resize
    readable = re.sub(r"[^A-Za-z0-9.]+", "-", source.label(identity["name"]))[-40:].strip("-.")
    return expanded(config.dataset.root) / "decoded" / f"{readable}-{height}x{width}-{key}"


def _problem(folder: Path, contents: str | None, replaced: str) -> str | None:
    """Why the cache is unusable, checked down to the last byte; None if it is complete.

    `contents`: the digest of the source's files, if it is to be compared, and what it means if that is another one.
    """
    try:
        meta = read_meta(folder)
        if contents not in (None, meta["contents"]):
            return replaced
        names = files_of(len(meta["splits"]))
        for name in names:
            size, expected = (folder / name).stat().st_size, meta["files"][name]["size"]
            if size != expected:
                return f"{name} has {size} bytes where {expected} were written"
        # hashlib releases the GIL, so two threads read the images of two splits at the same time.
        with ThreadPoolExecutor(2) as pool:
            sums = list(pool.map(file_digest, [folder / name for name in names]))
        broken = [name for name, found in zip(names, sums, strict=True) if found != meta["files"][name]["sha256"]]
    except FileNotFoundError as error:
        return f"{Path(str(error.filename)).name} is missing"
    except (OSError, ValueError, KeyError, TypeError) as error:
        return f"it cannot be read: {error!r}"
    return f"{broken[0]} is not what was written: its checksum differs" if broken else None


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold the lock of `folder`; the kernel releases it when the process dies. Raises DataError if that fails."""
    from filelock import FileLock, Timeout

    # Beside the folder, not in it: the folder is replaced by a rename.
    file = folder.with_name(f".{folder.name}.lock")
    lock = FileLock(file)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            log.info(f"waiting: another process is decoding into {folder}")
            lock.acquire(poll_interval=0.2)
    except OSError as error:
        raise DataError(
            f"{folder}: no complete decoded data set is here, and none can be written: "
            f"{why_not_writable(file, error)}; "
            "run the command where dataset.root is writable, or set dataset.root to a writable folder"
        ) from None
    try:
        yield
    finally:
        lock.release()


def _build_unless_whole(
    config: Config, source: DataSource, identity: dict[str, Any], folder: Path, contents: str | None
) -> None:
    """Under the lock: check again, since the previous holder may have built it; remove what a killed process left."""
    problem = _problem(folder, contents, source.replaced)
    if problem is None:
        return
    if folder.exists():
        log.warning(f"{folder}: {problem}; decoding again")
    _remove_leftovers(folder)
    # Unique: the lock is held, and the name has this process in it.
    building = folder.with_name(f".{folder.name}.{socket.gethostname()}-{os.getpid()}.tmp")
    try:
        building.mkdir()
        # Other sources execute nothing of the user's project.
        with as_frozen(config) if config.has_own_data else contextlib.nullcontext(config) as frozen:
            try:
                (build_apart if source.own_process else build)(frozen, identity, building)
            except RelayError as error:
                raise DataError(explained(str(error), frozen, config)) from None
        if folder.exists():
            # A rename cannot replace a folder that is not empty.
            folder.rename(folder.with_name(f".{folder.name}.broken.tmp"))
        building.rename(folder)
        sync_directory(folder.parent)
    except OSError as error:
        raise unwritable(folder, error) from None
    finally:
        _remove_leftovers(folder)


def _remove_leftovers(folder: Path) -> None:
    for leftover in folder.parent.glob(f".{folder.name}.*.tmp"):
        shutil.rmtree(leftover, ignore_errors=True)
