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
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from hashlib import blake2b
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from relay.errors import DataError
from relay.files import sync_directory
from relay.log import log
from relay.user import expanded
from src.config.schema import Config
from src.data import decoding
from src.data.decoding import Decoded, EncodedSplit
from src.data.sources import DataSource, source_of

_FORMAT = 2  # of the arrays and meta.json; part of the folder's key
_ROLES = ("train", "valid")
_FILES = tuple(f"{role}_{name}.npy" for role in _ROLES for name in ("images", "labels", "digests"))
_BATCH = 256


def ensure(config: Config, *, build: bool = True, look_closer: bool = False) -> Path:
    """The folder with the decoded images of a configuration, built first if it is missing.

    `look_closer`: built again if the content of a file of the source has changed, and not only sizes and times. Raises
    DataError, also if it is missing and `build` is false.
    """
    source = source_of(config.dataset)
    identity = {
        "source": source.kind,
        "name": source.locate(config.dataset.name),
        **source.identity(config),
        "format": _FORMAT,
        "decoder": decoding.VERSION,
        "resize": list(config.preprocess.resize),
    }
    folder = _place(config, source, identity)
    # Without the lock: a complete cache never changes, and its disk may be read-only.
    contents = source.contents(config) if look_closer else None
    problem = _problem(folder, contents)
    if problem is not None:
        if not build:
            raise DataError(f"{config.dataset.name}: its images are not decoded here ({problem})")
        with _locked(folder):
            _build_unless_whole(config, source, identity, folder, contents)
    return folder


def read_meta(folder: Path) -> dict[str, Any]:
    """The content of meta.json in a complete cache.

    `class_names`, `facts` (see `_decode_split`), `identity`, `files`, `other_splits`: the names of the splits of the
    source that are not decoded, and `contents`: the digest of its files, see `DataSource.contents`.
    """
    meta: dict[str, Any] = json.loads((folder / "meta.json").read_bytes())
    return meta


def content_digest(meta: Mapping[str, Any]) -> str:
    """A digest of the images and labels, 16 hex digits: the same bytes give the same digest, whatever their source."""
    sums = [meta["files"][name]["sha256"] for name in _FILES if "digests" not in name]
    return hashlib.sha256("\n".join(sums).encode()).hexdigest()[:16]


class Arrays(NamedTuple):
    """A decoded split: uint8 (N, 3, H, W), memory-mapped; int64 (N,); uint64 (N,), equal for images of equal pixels."""

    images: np.memmap[Any, np.dtype[np.uint8]]
    labels: npt.NDArray[np.int64]
    digests: npt.NDArray[np.uint64]


def read_arrays(folder: Path) -> tuple[Arrays, Arrays]:
    """The decoded splits train and valid."""
    train, valid = (
        Arrays(
            np.load(folder / f"{role}_images.npy", mmap_mode="r"),
            *(np.load(folder / f"{role}_{name}.npy") for name in ("labels", "digests")),
        )
        for role in _ROLES
    )
    return train, valid


def _place(config: Config, source: DataSource, identity: dict[str, Any]) -> Path:
    """The cache folder: a readable name, and a key of everything its content depends on."""
    key = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16]
    height, width = config.preprocess.resize
    readable = re.sub(r"[^A-Za-z0-9.]+", "-", source.label(identity["name"]))[-40:].strip("-.")
    return expanded(config.dataset.root) / "decoded" / f"{readable}-{height}x{width}-{key}"


def _problem(folder: Path, contents: str | None) -> str | None:
    """Why the cache is unusable, checked down to the last byte; None if it is complete.

    `contents`: the digest of the source's files, if it is to be compared.
    """
    try:
        meta = read_meta(folder)
        if contents not in (None, meta["contents"]):
            return "the files of the source were replaced by others of the same sizes and times"
        for name in _FILES:
            size, expected = (folder / name).stat().st_size, meta["files"][name]["size"]
            if size != expected:
                return f"{name} has {size} bytes where {expected} were written"
        # hashlib releases the GIL, so two threads read the images of both splits at the same time.
        with ThreadPoolExecutor(2) as pool:
            sums = list(pool.map(_sha256, [folder / name for name in _FILES]))
        broken = [name for name, found in zip(_FILES, sums, strict=True) if found != meta["files"][name]["sha256"]]
    except FileNotFoundError as error:
        return f"{Path(str(error.filename)).name} is missing"
    except (OSError, ValueError, KeyError, TypeError) as error:
        return f"it cannot be read: {error!r}"
    return f"{broken[0]} is not what was written: its checksum differs" if broken else None


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold the lock of `folder`; the kernel releases it when the process dies. Raises DataError if that fails."""
    from filelock import FileLock, Timeout

    # Beside the folder, not in it: the folder is replaced by a rename.
    lock = FileLock(folder.with_name(f".{folder.name}.lock"))
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            log.info(f"waiting: another process is decoding into {folder}")
            lock.acquire(poll_interval=0.2)
    except OSError as error:
        raise DataError(
            f"{folder}: no complete decoded data set is here, and none can be written: {error.strerror or error}; "
            f"run the command where dataset.root is writable, or set dataset.root to a writable folder"
        ) from None
    try:
        yield
    finally:
        lock.release()


def _build_unless_whole(
    config: Config, source: DataSource, identity: dict[str, Any], folder: Path, contents: str | None
) -> None:
    """Under the lock: check again, since the previous holder may have built it; remove what a killed process left."""
    problem = _problem(folder, contents)
    if problem is None:
        return
    if folder.exists():
        log.warning(f"{folder}: {problem}; decoding again")
    _remove_leftovers(folder)
    # Unique: the lock is held, and the name has this process in it.
    building = folder.with_name(f".{folder.name}.{socket.gethostname()}-{os.getpid()}.tmp")
    try:
        building.mkdir()
        _build(config, source, identity, building)
        if folder.exists():
            # A rename cannot replace a folder that is not empty.
            folder.rename(folder.with_name(f".{folder.name}.broken.tmp"))
        building.rename(folder)
        sync_directory(folder.parent)
    except OSError as error:
        raise DataError(
            f"{folder}: cannot be written: {error.strerror or error}; free some space or set dataset.root"
        ) from None
    finally:
        _remove_leftovers(folder)


def _remove_leftovers(folder: Path) -> None:
    for leftover in folder.parent.glob(f".{folder.name}.*.tmp"):
        shutil.rmtree(leftover, ignore_errors=True)


def _build(config: Config, source: DataSource, identity: dict[str, Any], folder: Path) -> None:
    """Decode both splits into `folder`, and write meta.json last."""
    scratch = folder / "source"
    class_names, splits, others = source.open_splits(config, scratch)
    facts = {
        role: _decode_split(split, folder, role, config.preprocess.resize, config.dataset.num_workers)
        for role, split in zip(_ROLES, splits, strict=True)
    }
    # datasets maps the files in `scratch` into memory; release them before they are removed.
    del splits
    shutil.rmtree(scratch, ignore_errors=True)
    files = {name: {"size": (folder / name).stat().st_size, "sha256": _sha256(folder / name)} for name in _FILES}
    meta = {
        "identity": identity,
        "class_names": class_names,
        "other_splits": others,
        "contents": source.contents(config),
        "facts": facts,
        "files": files,
    }
    (folder / "meta.json").write_text(json.dumps(meta, indent=1), encoding="utf-8")
    # Durable before the rename: a power cut must not leave the final name with incomplete files.
    for path in folder.iterdir():
        with path.open("rb") as file:
            os.fsync(file.fileno())
    sync_directory(folder)


def _decode_split(split: EncodedSplit, folder: Path, role: str, size: tuple[int, int], workers: int) -> dict[str, Any]:
    """Write the three arrays of a split. Returns counts of images, modes, sizes and conversions."""
    images = _new_array(folder / f"{role}_images.npy", (len(split), 3, *size))
    labels, digests = np.empty(len(split), dtype=np.int64), np.empty(len(split), dtype=np.uint64)
    modes: Counter[str] = Counter()
    sizes: Counter[str] = Counter()
    changes: Counter[str] = Counter()
    done = 0
    with contextlib.ExitStack() as stack:
        run = stack.enter_context(ThreadPoolExecutor(workers)).map if workers else map
        for encoded, batch_labels in split.batches(_BATCH):
            decoded: Iterable[Decoded] = run(split.decoder(size), range(done, done + len(encoded)), encoded)
            for offset, image in enumerate(decoded):
                images[done + offset] = image.pixels
                # 8 bytes: of a million different images, two have the same with a probability of 3e-8.
                digests[done + offset] = int.from_bytes(blake2b(image.pixels.tobytes(), digest_size=8).digest())
                modes[image.mode] += 1
                changes.update([image.change] if image.change else [])
                sizes["{}x{}".format(*image.size)] += 1
            labels[done : done + len(encoded)] = batch_labels
            before, done = done, done + len(encoded)
            if done == len(split) or done // 4000 > before // 4000:
                log.info(f"decoding {split.name}: {done} of {len(split)}")
    images.flush()
    np.save(folder / f"{role}_labels.npy", labels)
    np.save(folder / f"{role}_digests.npy", digests)
    return {"count": len(split), "modes": dict(modes), "sizes": dict(sizes), "changes": dict(changes)}


def _new_array(path: Path, shape: tuple[int, ...]) -> np.memmap[Any, np.dtype[np.uint8]]:
    """A memory-mapped array with all its blocks allocated.

    Without them, a write to the mapping of a full disk ends the process with SIGBUS. This way it is an OSError here.
    """
    array = np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=shape)
    if hasattr(os, "posix_fallocate"):  # Missing on macOS.
        with path.open("r+b") as file:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
    return array
