"""The images of a run: train, val and test as views of the decoded data set.

prepare(config)    decode the data set, or find it in the cache, and check that the config fits it
images_of(config)  equal for two configs that have the same images
digest(folder)     a digest of a decoded data set
load(config)       prepare, then return the three parts
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from relay.errors import DataError
from src.config.schema import Config
from src.data.cache import content_digest, ensure, read_arrays, read_meta
from src.data.overlap import check_overlap, check_test_split, count_shared
from src.data.split import check_sizes, split_valid

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, eq=False)
class ImageSubset:
    """Some images of one split: `images`, `labels` and `digests` are the whole split, see `Arrays`."""

    images: np.memmap[Any, np.dtype[np.uint8]]
    labels: npt.NDArray[np.int64]
    digests: npt.NDArray[np.uint64]
    indices: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.indices)

    def count_shared(self, other: ImageSubset) -> int:
        """How many of these images are also in `other`, pixel for pixel."""
        return count_shared(self.digests[self.indices], other.digests[other.indices])

    @property
    def digest(self) -> str:
        """16 hex digits, equal for two parts with the same images and labels in the same order."""
        content = self.digests[self.indices].tobytes() + self.labels[self.indices].tobytes()
        return hashlib.sha256(content).hexdigest()[:16]

    def take(self, positions: npt.NDArray[np.int64] | Tensor) -> tuple[Tensor, Tensor]:
        """Copies of the images uint8 (B, 3, H, W) and labels int64 (B,) at `positions`, int (B,), of this part."""
        import torch

        rows = self.indices[np.asarray(positions)]
        # Indexing by an array copies, so the tensors are writable and independent of the file.
        return torch.from_numpy(np.asarray(self.images)[rows]), torch.from_numpy(self.labels[rows])


@dataclass(frozen=True, eq=False)
class ImageData:
    """The images that a run trains on and is evaluated on.

    `facts`: per split, the number of images and their original modes and sizes (height x width). `digest`: of all
    images and labels of the decoded data set.
    """

    train: ImageSubset
    val: ImageSubset
    test: ImageSubset
    class_names: tuple[str, ...]
    folder: Path
    digest: str
    facts: dict[str, Any]


def prepare(config: Config, *, build: bool = True, look_closer: bool = False) -> Path:
    """The folder of the decoded data set, which is built first if it is missing, unless `build` is false.

    Imports no torch. `look_closer`: also built again if only the content of a source file has changed, see `ensure`.
    Raises DataError if the source cannot be read, if the configuration does not fit its classes and images, or if
    images would be measured that are trained on.
    """
    folder = ensure(config, build=build, look_closer=look_closer)
    meta = read_meta(folder)
    check_test_split(config, meta["other_splits"])
    train, valid = read_arrays(folder)
    classes = _count_classes(config, meta["class_names"])
    trained = _train_indices(config, train.labels, classes)
    check_sizes(valid.labels, classes, config.dataset.split.val, config.dataset.split.test)
    check_overlap(config, train.digests[trained], valid.digests[valid.labels < classes])
    return folder


def images_of(config: Config) -> tuple[object, ...]:
    """Everything that decides which images a run has; only for comparisons."""
    return config.dataset, config.preprocess.resize, config.model.num_classes


def digest(folder: Path) -> str:
    """A digest of the images and labels in a decoded data set: 16 hex digits."""
    return content_digest(read_meta(folder))


def load(config: Config, *, build: bool = True) -> ImageData:
    """The parts that the configuration selects, decoded first if they are missing. Raises DataError as `prepare`."""
    folder = prepare(config, build=build)
    meta = read_meta(folder)
    split = config.dataset.split
    classes = _count_classes(config, meta["class_names"])
    train, valid = read_arrays(folder)
    val, test = split_valid(valid.labels, classes, split.val, split.test, split.seed)
    return ImageData(
        train=ImageSubset(*train, _train_indices(config, train.labels, classes)),
        val=ImageSubset(*valid, val),
        test=ImageSubset(*valid, test),
        class_names=tuple(meta["class_names"][:classes]),
        folder=folder,
        digest=content_digest(meta),
        facts=meta["facts"],
    )


def _count_classes(config: Config, names: list[str]) -> int:
    """The number of classes of the run. Raises DataError if the data set does not have as many."""
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
    """Indices of the first `train_per_class` images of each class, in data set order; of all images if it is null."""
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
