"""A data set of image files in class folders: <folder>/<split>/<class>/*.jpg, or <folder>/<class>/*.jpg as split `.`.

Importing this module imports no PIL.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

import numpy as np

from relay.errors import DataError
from relay.log import log
from relay.text import counted, shortlist
from src.config.schema import Dataset
from src.data.columns import Labels
from src.data.decoding import Batch, EncodedSplit
from src.data.files import walk
from src.data.reading import VALIDATION, Opened, no_split

# The split that is the folder itself.
WHOLE = "."
_CLASSES_ONLY = f"set dataset.split.train={WHOLE} dataset.split.valid=null"
# Folders that all have such names are splits and no classes.
_SPLITS = VALIDATION | {"train", "training", "test", "testing", "eval", "evaluation"}


def has_class_folders(folder: Path, leave_out: Collection[Path]) -> bool:
    """Whether there is an image file in a folder below `folder`."""
    return any("/" in path and _is_image(path) for path, _ in walk(folder, leave_out=leave_out))


def open_class_folders(folder: Path, dataset: Dataset, leave_out: Collection[Path]) -> Opened:
    """The splits that `dataset` names. The folders of the split that is trained on are the classes, in order.

    `leave_out`: folders of `folder` that are no part of the data set. Raises DataError for a split that is not there,
    an image in no class, a class without images, one that is not trained on, and links out of the folder.
    """
    places = _places(folder, dataset, leave_out)
    listed = {name: _paths_by_class(folder, place, leave_out) for name, place in places.items()}
    train = dataset.split.train
    class_names = _subfolders(folder / places[train], leave_out)
    empty = [name for name in class_names if name not in listed[train]]
    if empty:
        raise DataError(
            f"{folder}: split {train!r} has no images of {shortlist(empty)}; add some, or remove the folder"
        )
    if places[train] == WHOLE and _SPLITS.issuperset(class_names):
        raise DataError(
            f"{folder}: its folders are splits and no classes: {', '.join(class_names)}; "
            f"set dataset.split.train={class_names[0]}, and the other ones likewise"
        )
    for name, by_class in listed.items():
        unknown = sorted(by_class.keys() - set(class_names))
        if unknown:
            raise DataError(
                f"{folder}: split {places[name]!r} has images of {shortlist(unknown)}, and split {train!r} has none; "
                f"its classes are {shortlist(class_names)}"
            )
    splits = [
        _FileSplit(name, folder, [by_class.get(each, []) for each in class_names]) for name, by_class in listed.items()
    ]
    others = [] if WHOLE in places.values() else _subfolders(folder, leave_out)
    return Opened(class_names, splits, [name for name in others if name not in places.values()])


def _places(folder: Path, dataset: Dataset, leave_out: Collection[Path]) -> dict[str, str]:
    """Split -> its folder in `folder`."""
    there, names = _subfolders(folder, leave_out), dataset.split.names
    if WHOLE in names:
        if len(names) > 1:
            raise DataError(
                f"dataset.split: {WHOLE} is the whole of {folder}, and no split can be beside it; "
                f"set dataset.split.valid=null, and val and test to numbers or shares of the images"
            )
        return {WHOLE: WHOLE}
    places = {}
    for name in names:
        alike = [each for each in there if {each, name} <= VALIDATION]
        if name not in there and len(alike) != 1:
            are_splits = any(each in _SPLITS and _subfolders(folder / each, leave_out) for each in there)
            advice = "" if are_splits else f"; if these are the classes, {_CLASSES_ONLY}"
            raise DataError(no_split(str(folder), dataset.split, name, there, f"{name}/<class>/*.jpg") + advice)
        places[name] = name if name in there else alike[0]
    return places


def _subfolders(folder: Path, leave_out: Collection[Path]) -> list[str]:
    return sorted(
        each.name for each in folder.iterdir() if each.name[0] != "." and each not in leave_out and each.is_dir()
    )


def _paths_by_class(folder: Path, place: str, leave_out: Collection[Path]) -> dict[str, list[str]]:
    """Class -> the paths of its images in `folder`, as torchvision's ImageFolder orders them."""
    by_class: dict[str, list[str]] = {}
    loose, skipped = [], []
    for path in _linked_files(folder, "" if place == WHOLE else place, leave_out):
        class_name, _, rest = (path if place == WHOLE else path.removeprefix(f"{place}/")).partition("/")
        if not _is_image(path):
            skipped.append(path)
        elif not rest:
            loose.append(path)
        else:
            by_class.setdefault(class_name, []).append(path)
    if loose:
        whole = "" if by_class else f"; if {place!r} is a class, and no split, {_CLASSES_ONLY}"
        raise DataError(
            f"{folder}: {counted(len(loose), 'image')} of split {place!r} in no class folder, such as {loose[0]}; "
            f"move each into the folder of its class{whole}"
        )
    if skipped:
        log.info(
            f"skipped {counted(len(skipped), 'file')} of split {place!r} that are no images: {shortlist(skipped, 3)}"
        )
    return {name: sorted(paths, key=os.path.split) for name, paths in by_class.items()}


def _linked_files(folder: Path, top: str, leave_out: Collection[Path]) -> Iterator[str]:
    """The paths of all files below `folder`/`top`, through links to folders. Raises DataError for links to outside."""
    for path, entry in walk(folder, top, leave_out):
        if entry.is_symlink():
            # A data set must not bring other files of this machine into the images.
            target = Path(entry.path).resolve()
            if not target.is_relative_to(folder):
                raise DataError(f"{entry.path}: is a link to {target}, which is outside of {folder}; copy it there")
            if target in (parent.resolve() for parent in Path(entry.path).parents):
                raise DataError(f"{entry.path}: is a link to a folder that it is in itself; remove it")
            if target.is_dir():
                yield from _linked_files(folder, path, leave_out)
                continue
        yield path


def _is_image(path: str) -> bool:
    name = path.rpartition("/")[2]
    stem, _, suffix = name.rpartition(".")
    return bool(stem) and name[0] != "." and suffix.lower() in _suffixes()


@functools.cache
def _suffixes() -> frozenset[str]:
    """The suffixes of the formats that Pillow opens."""
    from PIL import Image

    return frozenset(suffix[1:] for suffix, kind in Image.registered_extensions().items() if kind in Image.OPEN)


class _FileSplit(EncodedSplit):
    """Image files, class by class."""

    def __init__(self, name: str, folder: Path, by_class: Sequence[Sequence[str]]) -> None:
        super().__init__(name, str(folder))
        self._folder = folder
        self._paths = [path for paths in by_class for path in paths]
        self._labels: Labels = np.repeat(np.arange(len(by_class), dtype=np.int64), [len(paths) for paths in by_class])

    def __len__(self) -> int:
        return len(self._paths)

    def batches(self, size: int) -> Iterator[Batch]:
        for start in range(0, len(self), size):
            part = slice(start, start + size)
            yield [self._folder / path for path in self._paths[part]], self._labels[part]

    def named(self, index: int) -> str:
        return self._paths[index]
