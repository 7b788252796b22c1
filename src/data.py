"""Images for a run: decoded once on a node into memory-mapped arrays, found again by every run after that.

    prepare(config)   make or find the decoded data set under <dataset.root>/decoded and check that the config fits it
    load(config)      prepare, then the train, val and test parts as views of it

One folder per source, revision, size and transform. It is built beside its place under a file lock and renamed when it
is whole: meta.json, written last, holds the size and SHA-256 of every file. A run that finds it imports neither
datasets nor PIL nor torchvision, and takes no lock.
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
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from src import sources
from src.config import Config
from src.errors import DataError
from src.files import sync_directory
from src.split import check_sizes, split_valid

if TYPE_CHECKING:
    from torch import Tensor

Progress = Callable[[str], None]
_FORMAT = 1  # of the arrays and of meta.json; another number is another folder
_TRANSFORM = "convert RGB, PIL bilinear"
_FILES = ("train_images.npy", "train_labels.npy", "valid_images.npy", "valid_labels.npy")
_BATCH = 256


@dataclass(frozen=True, eq=False)
class ImagePart:
    """Some images of one split: `images` uint8 (N, 3, H, W) and `labels` int64 (N,) are the whole split."""

    images: np.memmap[Any, np.dtype[np.uint8]]
    labels: npt.NDArray[np.int64]
    indices: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.indices)

    def take(self, positions: npt.NDArray[np.int64] | Tensor) -> tuple[Tensor, Tensor]:
        """Copies of the images uint8 (B, 3, H, W) and labels int64 (B,) at `positions`, int (B,), of this part."""
        import torch

        rows = self.indices[np.asarray(positions)]
        return torch.from_numpy(np.asarray(self.images)[rows]), torch.from_numpy(self.labels[rows])


@dataclass(frozen=True, eq=False)
class ImageData:
    """What a run trains and is measured on. `facts`: per split its count, original modes and sizes (height x width)."""

    train: ImagePart
    val: ImagePart
    test: ImagePart
    class_names: tuple[str, ...]
    folder: Path
    facts: dict[str, Any]


def _silent(message: str) -> None:
    """Progress that nobody reads."""


def prepare(config: Config, progress: Progress = _silent) -> Path:
    """Make or find the decoded data set; returns its folder.

    Raises DataError where the source cannot be read, or the configuration does not fit what is in it.
    """
    source = sources.resolve(config.dataset)
    identity = {
        **sources.identity(config, source),
        "format": _FORMAT,
        "transform": _TRANSFORM,
        "resize": list(config.preprocess.resize),
    }
    folder = _place(config, source, identity)
    if _problem(folder) is not None:
        with _locked(folder, progress):
            _build_unless_whole(config, source, identity, folder, progress)
    meta = _read_meta(folder)
    train_labels, valid_labels = (np.load(folder / f"{role}_labels.npy") for role in ("train", "valid"))
    classes = _count_classes(config, meta["class_names"])
    _train_indices(config, train_labels, classes)
    check_sizes(valid_labels, classes, config.dataset.split.val, config.dataset.split.test)
    return folder


def load(config: Config, progress: Progress = _silent) -> ImageData:
    """The parts that the configuration asks for, made first where they are not there. Raises DataError."""
    folder = prepare(config, progress)
    meta = _read_meta(folder)
    split = config.dataset.split
    classes = _count_classes(config, meta["class_names"])
    train_images, train_labels, valid_images, valid_labels = _map_arrays(folder)
    val, test = split_valid(valid_labels, classes, split.val, split.test, split.seed)
    return ImageData(
        train=ImagePart(train_images, train_labels, _train_indices(config, train_labels, classes)),
        val=ImagePart(valid_images, valid_labels, val),
        test=ImagePart(valid_images, valid_labels, test),
        class_names=tuple(meta["class_names"][:classes]),
        folder=folder,
        facts=meta["facts"],
    )


def _map_arrays(folder: Path) -> list[Any]:
    """The arrays of _FILES: images mapped, labels read."""
    return [np.load(folder / name, mmap_mode="r" if "images" in name else None) for name in _FILES]


def _count_classes(config: Config, names: list[str]) -> int:
    """How many classes the run has. Raises DataError where the data set has another number."""
    asked, wanted, there = config.dataset.classes, config.model.num_classes, len(names)
    if asked is not None and asked > there:
        raise DataError(
            f"dataset.classes: {asked}, but {config.dataset.name} has {there} classes; "
            f"set dataset.classes={there} model.num_classes={there} {_sizes_for(config, there)}, or fewer"
        )
    if asked is None and wanted != there:
        part = f", or dataset.classes={wanted} to take the first {wanted} of them" if wanted < there else ""
        raise DataError(
            f"model.num_classes: {wanted}, but {config.dataset.name} has {there} classes and dataset.classes is null; "
            f"set model.num_classes={there} {_sizes_for(config, there)}{part}"
        )
    return wanted


def _sizes_for(config: Config, classes: int) -> str:
    """The split sizes nearest below the configured ones that divide into `classes`, as overrides."""
    split = config.dataset.split
    val, test = max(split.val - split.val % classes, classes), split.test - split.test % classes
    return f"dataset.split.val={val} dataset.split.test={test}"


def _train_indices(config: Config, labels: npt.NDArray[np.int64], classes: int) -> npt.NDArray[np.int64]:
    """The balanced part in data set order: the first `train_per_class` images of the first classes."""
    each = config.dataset.train_per_class
    if each is None:
        return np.flatnonzero(labels < classes)
    counts = np.bincount(labels, minlength=classes)[:classes]
    if counts.min() < each:
        raise DataError(
            f"dataset.train_per_class: {each}, but label {counts.argmin()} of {config.dataset.name} has {counts.min()} "
            f"train images; set dataset.train_per_class={counts.min()} or less, or null to take all"
        )
    return np.sort(np.concatenate([np.flatnonzero(labels == label)[:each] for label in range(classes)]))


def _place(config: Config, source: sources.Source, identity: dict[str, Any]) -> Path:
    """The folder of the decoded data set: a name to read, and a key of all that its content depends on."""
    key = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16]
    height, width = config.preprocess.resize
    name = Path(source.name).name if source.kind == "folder" else source.name
    readable = re.sub(r"[^A-Za-z0-9.]+", "-", name)[-40:].strip("-.")
    return Path(config.dataset.root).expanduser() / "decoded" / f"{readable}-{height}x{width}-{key}"


def _problem(folder: Path) -> str | None:
    """What keeps the folder from being whole, every byte of it read; None where nothing does."""
    try:
        meta = _read_meta(folder)
        for name in _FILES:
            size, expected = (folder / name).stat().st_size, meta["files"][name]["size"]
            if size != expected:
                return f"{name} has {size} bytes where {expected} were written"
        # Hashing gives up the interpreter lock, so the images of both splits are read at the same time.
        with ThreadPoolExecutor(2) as pool:
            sums = list(pool.map(_sha256, [folder / name for name in _FILES]))
        broken = [name for name, found in zip(_FILES, sums, strict=True) if found != meta["files"][name]["sha256"]]
    except FileNotFoundError as error:
        return f"{Path(str(error.filename)).name} is missing"
    except (OSError, ValueError, KeyError, TypeError) as error:
        return f"it cannot be read: {error!r}"
    return f"{broken[0]} is not what was written: its checksum differs" if broken else None


def _read_meta(folder: Path) -> dict[str, Any]:
    meta: dict[str, Any] = json.loads((folder / "meta.json").read_bytes())
    return meta


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextlib.contextmanager
def _locked(folder: Path, progress: Progress) -> Iterator[None]:
    """Hold the lock of `folder`; the system gives it up when its owner dies. Raises DataError if it cannot be made."""
    from filelock import FileLock, Timeout

    lock = FileLock(folder.with_name(f".{folder.name}.lock"))
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            progress(f"waiting: another process is decoding into {folder}")
            lock.acquire(poll_interval=0.2)
    except OSError as error:
        raise DataError(
            f"{folder}: no whole decoded data set is here, and it cannot be made: {error.strerror or error}; "
            f"prepare it where dataset.root can be written, or set dataset.root to such a folder"
        ) from None
    try:
        yield
    finally:
        lock.release()


def _build_unless_whole(
    config: Config, source: sources.Source, identity: dict[str, Any], folder: Path, progress: Progress
) -> None:
    """Under the lock: whoever held it before may have built it; what an earlier process left half done goes."""
    problem = _problem(folder)
    if problem is None:
        return
    if folder.exists():
        progress(f"{folder}: {problem}; decoding again")
    _remove_leftovers(folder)
    # No other process makes this name: it holds the lock.
    building = folder.with_name(f".{folder.name}.{socket.gethostname()}-{os.getpid()}.tmp")
    try:
        building.mkdir()
        _build(config, source, identity, building, progress)
        if folder.exists():
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


def _build(config: Config, source: sources.Source, identity: dict[str, Any], folder: Path, progress: Progress) -> None:
    """Decode both splits into `folder`; meta.json comes last."""
    scratch = folder / "source"
    names = (config.dataset.split.train, config.dataset.split.valid)
    class_names, splits = sources.open_splits(config, source, names, scratch, progress)
    facts = {
        role: _decode_split(split, folder, role, config.preprocess.resize, config.dataset.num_workers, progress)
        for role, split in zip(("train", "valid"), splits, strict=True)
    }
    del splits
    shutil.rmtree(scratch, ignore_errors=True)
    files = {name: {"size": (folder / name).stat().st_size, "sha256": _sha256(folder / name)} for name in _FILES}
    meta = {"identity": identity, "class_names": class_names, "facts": facts, "files": files}
    (folder / "meta.json").write_text(json.dumps(meta, indent=1), encoding="utf-8")
    for path in folder.iterdir():
        with path.open("rb") as file:
            os.fsync(file.fileno())
    sync_directory(folder)


def _decode_split(
    split: sources.EncodedSplit, folder: Path, role: str, size: tuple[int, int], workers: int, progress: Progress
) -> dict[str, Any]:
    """Write <role>_images.npy and <role>_labels.npy; returns the facts of the split."""
    images = _new_array(folder / f"{role}_images.npy", (len(split), 3, *size))
    labels = np.empty(len(split), dtype=np.int64)
    modes: Counter[str] = Counter()
    sizes: Counter[str] = Counter()
    done = 0
    with contextlib.ExitStack() as stack:
        run = stack.enter_context(ThreadPoolExecutor(workers)).map if workers else map
        for encoded, batch_labels in split.batches(_BATCH):
            decoded: Iterable[sources.Decoded] = run(split.decoder(size), range(done, done + len(encoded)), encoded)
            for offset, image in enumerate(decoded):
                images[done + offset] = image.pixels
                modes[image.mode] += 1
                sizes["{}x{}".format(*image.size)] += 1
            labels[done : done + len(encoded)] = batch_labels
            before, done = done, done + len(encoded)
            if done == len(split) or done // 4000 > before // 4000:
                progress(f"decoding {split.name}: {done} of {len(split)}")
    images.flush()
    np.save(folder / f"{role}_labels.npy", labels)
    return {"count": len(split), "modes": dict(modes), "sizes": dict(sizes)}


def _new_array(path: Path, shape: tuple[int, ...]) -> np.memmap[Any, np.dtype[np.uint8]]:
    """An array on disk that exists in full: a full disk is an OSError here, not a SIGBUS at some later image."""
    array = np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=shape)
    if hasattr(os, "posix_fallocate"):
        with path.open("r+b") as file:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
    return array
