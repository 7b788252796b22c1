"""The images of a run: train, val and test as views of the decoded data set.

prepare(config)    decode the data set, or find it in the cache, and check that the config fits it
images_of(config)  equal for two configs that have the same images
digest(folder)     a digest of a decoded data set
load(config)       the three parts of the same data set
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from relay.errors import DataError
from src.config.schema import Config
from src.data.cache import Arrays, content_digest, ensure, read_arrays, read_meta
from src.data.inputs import check_inputs
from src.data.overlap import check_overlap, check_test_split, count_shared
from src.data.split import Part, split_images

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, eq=False)
class ImageSubset:
    """Some images or other inputs of one split: `images`, `labels` and `digests` are the whole split, see `Arrays`."""

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
        """Copies of the images uint8 (B, C, H, W), or other inputs, and labels int64 (B,) at `positions`, int (B,), of
        this part.
        """
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


def prepare(config: Config, *, look_closer: bool = False) -> Path:
    """The folder of the decoded data set, which is built first if it is missing.

    `look_closer`: also built again if only the content of a source file has changed, see `ensure`. Raises DataError as
    `load`.
    """
    folder = ensure(config, look_closer=look_closer)
    _load_from(folder, config)
    return folder


def load(config: Config, *, build: bool = True) -> ImageData:
    """The parts that the configuration selects, decoded first if they are missing, unless `build` is false.

    Imports no torch. Raises DataError if the source cannot be read, if the configuration does not fit its classes and
    images, or if images would be measured that are trained on.
    """
    return _load_from(ensure(config, build=build), config)


def _load_from(folder: Path, config: Config) -> ImageData:
    meta = read_meta(folder)
    check_test_split(config, meta["other_splits"])
    arrays, classes = read_arrays(folder), _count_classes(config, meta["class_names"])
    check_inputs(config, arrays[config.dataset.split.train].images)
    labels = {name: split.labels for name, split in arrays.items()}
    parts = split_images(config.dataset.split, labels, classes, config.dataset.train_per_class)
    used = _used(config.dataset.split.train, arrays, parts, classes)
    check_overlap(config, {name: arrays[name].digests[indices] for name, indices in used.items()})
    return ImageData(
        **{name: ImageSubset(*arrays[part.source], part.indices) for name, part in parts.items()},
        class_names=tuple(meta["class_names"][:classes]),
        folder=folder,
        digest=content_digest(meta),
        facts=meta["facts"],
    )


def _used(
    train: str, arrays: Mapping[str, Arrays], parts: Mapping[str, Part], classes: int
) -> dict[str, npt.NDArray[np.int64]]:
    """By split of the source: those of the split `train` that are in a part, and all of the others."""
    used = {name: np.flatnonzero(split.labels < classes) for name, split in arrays.items()}
    # Without those that dataset.train_per_class leaves out.
    return {**used, train: np.concatenate([part.indices for part in parts.values() if part.source == train])}


def images_of(config: Config) -> tuple[object, ...]:
    """Everything that decides which images a run has; only for comparisons."""
    return config.dataset, config.preprocess.resize, config.preprocess.mode, config.model.num_classes


def digest(folder: Path) -> str:
    """A digest of the images and labels in a decoded data set: 16 hex digits."""
    return content_digest(read_meta(folder))


def _count_classes(config: Config, names: list[str]) -> int:
    """The number of classes of the run. Raises DataError if the data set does not have as many."""
    asked, wanted, there = config.dataset.classes, config.model.num_classes, len(names)
    wanted = (asked or there) if wanted == "auto" else wanted
    if asked is not None and asked > there:
        raise DataError(
            f"dataset.classes: {asked}, but {config.dataset.name} has {there} classes; "
            f"set dataset.classes={there} model.num_classes={there}, or fewer"
        )
    if asked is None and wanted != there:
        part = f", or dataset.classes={wanted} to take the first {wanted} of them" if wanted < there else ""
        raise DataError(
            f"model.num_classes: {wanted}, but {config.dataset.name} has {there} classes and dataset.classes is null; "
            f"set model.num_classes={there} or auto{part}"
        )
    return wanted
