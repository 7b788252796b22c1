"""Data source: the data sets of torchvision, read where they lie in dataset.root, and never downloaded.

Importing this module imports neither torch nor torchvision. `open_splits` does.
"""

from __future__ import annotations

import inspect
import operator
import re
import secrets
import sys
from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from relay.errors import DataError
from relay.text import brief, shortlist
from relay.user import expanded
from src.config.schema import Config
from src.data.decoding import Batch, EncodedSplit, encoded_image
from src.data.reading import Opened, no_split

if TYPE_CHECKING:
    pass

_NAME = re.compile(r"torchvision/([A-Za-z_]\w*)")
# What a `split` of torchvision is never called.
_NO_SPLIT = "?"


def recognizes(name: str) -> bool:
    """Whether `name` has the form torchvision/CIFAR10."""
    return _NAME.fullmatch(name) is not None


def locate(name: str) -> str:
    """The name itself. Raises DataError if it does not have the form torchvision/CIFAR10."""
    if not recognizes(name):
        raise DataError(f"dataset.name: {name!r} is no data set of torchvision; write torchvision/CIFAR10, for example")
    return name


def identity(config: Config) -> dict[str, Any]:
    """Nothing: these data sets are published, and do not change. The decoded images lie beside the files."""
    return {}


def contents(config: Config) -> str:
    """Never the same: where it is asked for, they are read again."""
    return secrets.token_hex(8)


def open_splits(config: Config, scratch: Path) -> Opened:
    """The splits of the configuration. Raises DataError if they are not there, or have no images of one class each."""
    name, root, split = config.dataset.name, expanded(config.dataset.root), config.dataset.split
    kind = _kind(name)
    there = _splits(kind, root)
    missing = [each for each in split.names if there is not None and each not in there]
    if missing:
        raise DataError(no_split(name, split, missing[0], list(there or ())))
    opened = {each: _open(kind, name, root, each) for each in split.names}
    for each, data in opened.items():
        _check_item(name, each, data)
    class_names, trained = _classes(name, split.train, opened[split.train])
    splits = [_ItemSplit(each, name, data, _meant(data, class_names, trained)) for each, data in opened.items()]
    return Opened(class_names, splits, [each for each in there or () if each not in split.names])


def _kind(name: str) -> type:
    """The class in torchvision.datasets that the name means."""
    from torchvision import datasets

    wanted = name.partition("/")[2]
    kind = getattr(datasets, wanted, None)
    known = [each for each in datasets.__all__ if inspect.isclass(getattr(datasets, each))]
    if wanted not in known or not inspect.isclass(kind):
        near = get_close_matches(wanted, known, 1)
        advice = f"torchvision/{near[0]}" if near else "torchvision/CIFAR10, for example"
        raise DataError(f"dataset.name: torchvision.datasets has no {wanted}; set it to {advice}")
    if kind is datasets.ImageFolder:
        raise DataError(f"dataset.name: {name}: set it to the folder itself, whose class folders are read without it")
    own = inspect.signature(kind).parameters
    needed = [
        each.name for each in own.values() if each.default is each.empty and each.kind is each.POSITIONAL_OR_KEYWORD
    ]
    unknown = [each for each in needed if each not in ("root", "split")]
    if "root" not in own or unknown:
        reason = f"it needs {shortlist(unknown)}" if unknown else "it lies in no folder"
        raise DataError(f"dataset.name: {name} cannot be read: {reason}; only images of one class each can")
    return kind


def _splits(kind: type, root: Path) -> list[str] | None:
    """The names of the splits of a data set; None if it does not tell.

    The parameter `train` makes train and test. The values of the parameter `split` are in the error that another value
    causes, before any file is read. Without either there is only train.
    """
    own = inspect.signature(kind).parameters
    if "train" in own:
        return ["train", "test"]
    if "split" not in own:
        return ["train"]
    try:
        kind(root, split=_NO_SPLIT)
    except ValueError as error:
        values = str(error).partition("Valid values are")[2]
        return re.findall(r"'([^']*)'", values) or None
    except Exception:
        return None
    return None


def _open(kind: type, name: str, root: Path, split: str) -> Any:
    own = inspect.signature(kind).parameters
    # Some download by default.
    options: dict[str, Any] = {"download": False} if "download" in own else {}
    if "train" in own:
        options["train"] = split == "train"
    elif "split" in own:
        options["split"] = split
    try:
        return kind(root, **options)
    except ImportError as error:
        raise DataError(
            f"{name}: torchvision needs the package {error.name or error} for it; install it for {sys.executable}"
        ) from None
    except Exception as error:
        how = (
            f", as torchvision.datasets.{kind.__name__}({str(root)!r}, download=True) does" if "download" in own else ""
        )
        raise DataError(
            f"{name}: torchvision cannot read split {split!r} in dataset.root, {root}: {brief(error)}. "
            f"It is not downloaded here; put {_expected(kind, root)} there{how}, or set dataset.root to where it lies"
        ) from None


def _expected(kind: type, root: Path) -> str:
    """Where torchvision looks for the files of a data set, as far as it says."""
    folder = getattr(kind, "base_folder", None)
    if isinstance(folder, str) and folder:
        return f"{root / folder}"
    return f"the files of {root / kind.__name__ / 'raw'}" if hasattr(kind, "raw_folder") else "its files"


def _check_item(name: str, split: str, data: Any) -> None:
    """Raise DataError unless the items are an image and the number of its class."""
    from PIL import Image

    if not len(data):
        return
    item = _item(name, split, data, 0)
    is_pair = isinstance(item, tuple) and len(item) == 2
    if not (is_pair and isinstance(item[0], Image.Image) and _number(item[1]) is not None):
        parts = ", ".join(type(part).__name__ for part in item) if isinstance(item, tuple) else type(item).__name__
        raise DataError(
            f"dataset.name: {name} is no data set of images of one class each: its items are ({parts}), "
            "and must be (Image, int)"
        )


def _item(name: str, split: str, data: Any, index: int) -> Any:
    try:
        return data[index]
    except Exception as error:  # its files may be damaged in any way
        raise DataError(f"{name}: split {split!r}, image {index} cannot be read: {brief(error)}") from None


def _number(label: Any) -> int | None:
    try:
        return operator.index(label)
    except TypeError:
        return None


def _classes(name: str, split: str, train: Any) -> tuple[list[str], dict[int, int]]:
    """The names of the classes of the split that is trained on, and the number of the class that each label means."""
    names = _names(train)
    if names:
        return names, {number: number for number in range(len(names))}
    values = sorted(set(_labels(name, split, train)))
    return [str(value) for value in values], {value: number for number, value in enumerate(values)}


def _names(data: Any) -> list[str]:
    """The names of the classes that a data set has, by label; empty if it has none."""
    names = getattr(data, "classes", None)
    if not isinstance(names, Sequence) or isinstance(names, str):
        return []
    # ImageNet has several words for each.
    return [each if isinstance(each, str) else str(each[0]) for each in names]


def _meant(data: Any, class_names: list[str], trained: dict[int, int]) -> dict[int, int]:
    """Label of one split -> the number of its class, where `trained` are those of the split that is trained on.

    Some sets number the classes that each split has: the same label is another class there.
    """
    names = _names(data)
    if not names or names == class_names:
        return trained
    return {label: class_names.index(each) for label, each in enumerate(names) if each in class_names}


def _labels(name: str, split: str, data: Any) -> list[int]:
    """The labels of all images, without reading these if the data set has the labels apart."""
    for attribute in ("targets", "labels", "_labels"):
        labels = np.asarray(getattr(data, attribute, None))
        if labels.shape == (len(data),) and labels.dtype.kind in "iu":
            return [int(label) for label in labels]
    return [int(_item(name, split, data, index)[1]) for index in range(len(data))]


class _ItemSplit(EncodedSplit):
    """A data set of torchvision, whose labels are the keys of `classes`."""

    def __init__(self, name: str, where: str, data: Any, classes: Mapping[int, int]) -> None:
        super().__init__(name, where)
        self._data, self._classes = data, classes

    def __len__(self) -> int:
        return len(self._data)

    def batches(self, size: int) -> Iterator[Batch]:
        for start in range(0, len(self), size):
            rows = range(start, min(start + size, len(self)))
            items = [_item(self.where, self.name, self._data, index) for index in rows]
            labels = [self._class(index, label) for index, (_, label) in zip(rows, items, strict=True)]
            yield [encoded_image(image) for image, _ in items], np.array(labels, dtype=np.int64)

    def _class(self, index: int, label: Any) -> int:
        number = self._classes.get(_number(label))  # type: ignore[arg-type]
        if number is None:
            raise DataError(
                f"{self.where}: split {self.name!r}, image {index} has the label {label}, which is no class of the "
                f"split that is trained on; the labels that are: {shortlist([str(each) for each in self._classes])}"
            )
        return number
