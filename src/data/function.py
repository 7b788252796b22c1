"""Data source: a function of the user's project, `load(split) -> (x, y)`, called where runs are planned.

It is called once for each split, in a process of its own, with the project's folder as the current one. `x` are images,
uint8 (N, C, H, W), or what a network of the user's own takes: floating-point or whole numbers (N, ...).
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from relay.errors import DataError
from relay.program.own_code import is_own, load_own, where_raised
from relay.text import shortlist
from src.config.project import linked_digest, project_digest
from src.config.schema import Config
from src.data.decoding import Batch, EncodedSplit, ValueSplit, encoded_image
from src.data.reading import Opened

_KEY = "dataset.name"
_CHANNELS = (1, 3, 4)


def recognizes(name: str) -> bool:
    """Whether `name` has the form module:function."""
    return is_own(name)


def locate(name: str) -> str:
    """The name itself. Raises DataError if it does not have the form module:function."""
    if not is_own(name):
        raise DataError(f"{_KEY}: {name!r} is no function of a project; write module:function, such as my_data:load")
    return name


def identity(config: Config) -> dict[str, Any]:
    """The code of the project, and a digest of what it links to."""
    return {"project": project_digest(config), "files": linked_digest(config)}


def contents(config: Config) -> str:
    """Never the same: a function may read anything, so it is called again where that is asked for."""
    return secrets.token_hex(8)


def open_splits(config: Config, scratch: Path) -> Opened:
    """What the function returns for each split of the configuration.

    Raises DataError if it cannot be called or returns anything else, ConfigError if there is no such function.
    """
    name, project = config.dataset.name, config.project.path
    os.chdir(project)
    load = load_own(name, project, _KEY)
    if not callable(load):
        raise DataError(f"{_KEY}: {name} is no function, but {type(load).__name__}")
    first, *others = config.dataset.split.names
    x, y = _call(load, name, first, project)
    values, names = _classes(y, name, first)
    splits = [_split(name, first, x, y, values, first)]
    for other in others:
        xs, ys = _call(load, name, other, project)
        if xs.shape[1:] != x.shape[1:] or xs.dtype != x.dtype:
            raise DataError(
                f"{_KEY}: {name} gives {_shown(xs)} for {other!r} and {_shown(x)} for {first!r}; apart from the first "
                "number, they must be equal"
            )
        splits.append(_split(name, other, xs, ys, values, first))
    return Opened(names, splits, [])


def _call(load: Any, name: str, split: str, project: str) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """x and y as arrays, of equal length."""
    where = f"{_KEY}: {name}({split!r})"
    try:
        found = load(split)
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        # SystemExit as well: nothing was returned.
        raise DataError(
            f"{where} failed: {where_raised(error, project)}; it is called for each of dataset.split: without a split "
            f"of this name, set dataset.split.valid=null to draw val and test from {split!r}"
            if isinstance(error, KeyError)
            else f"{where} failed: {where_raised(error, project)}"
        ) from None
    if not isinstance(found, tuple | list) or len(found) != 2:
        raise DataError(f"{where} gives {type(found).__name__}; it must return two arrays: inputs and labels, (x, y)")
    x, y = (_array(part, f"{where}: {name}") for part, name in zip(found, ("x", "y"), strict=True))
    if x.ndim < 2:
        raise DataError(f"{where}: x is {_shown(x)}; it must have a row for each label, (N, ...)")
    if y.ndim != 1 or len(x) != len(y):
        raise DataError(f"{where}: x is {_shown(x)} and y {_shown(y)}; y must be (N,), with a label for each of x")
    if not len(x):
        raise DataError(f"{where} gives no inputs; return some, or name another split")
    return x, y


def _array(part: Any, what: str) -> npt.NDArray[Any]:
    """As numpy holds it; tensors of torch from wherever they are."""
    try:
        if hasattr(part, "detach"):
            part = part.detach().cpu()
            # numpy has no bfloat16.
            part = part.float() if part.is_floating_point() else part
        array = np.asarray(part)
    except (TypeError, ValueError, RuntimeError) as error:
        raise DataError(f"{what} is no array of numbers: {error}") from None
    if np.ma.isMaskedArray(part) and np.ma.is_masked(part):
        raise DataError(f"{what} has masked values, which would be used as they are; fill them, or leave the rows out")
    if array.dtype.kind == "O":
        raise DataError(
            f"{what} is no array of numbers, but of {type(array.flat[0]).__name__}; all rows need one shape"
        )
    return array


def _classes(y: npt.NDArray[Any], name: str, split: str) -> tuple[npt.NDArray[Any], list[str]]:
    """The labels of the split that is trained on, each once, in order, and their names."""
    if y.dtype.kind == "f" and np.isfinite(y).all() and (y == np.round(y)).all():
        y = y.astype(np.int64)
    if y.dtype.kind not in "iubUS":
        raise DataError(
            f"{_KEY}: {name}({split!r}): y is {_shown(y)}; labels must be whole numbers or texts, one for each class"
        )
    values = np.unique(y)
    return values, [str(value) for value in values.tolist()]


def _split(
    name: str, split: str, x: npt.NDArray[Any], y: npt.NDArray[Any], values: npt.NDArray[Any], first: str
) -> EncodedSplit:
    where = f"{_KEY}: {name}({split!r})"
    labels = np.minimum(np.searchsorted(values, y), len(values) - 1)
    wrong = np.flatnonzero(values[labels] != y)
    if len(wrong):
        raise DataError(
            f"{where}: row {wrong[0]} has the label {y[wrong[0]]!r}, which no row of {first!r} has; its labels are "
            f"{shortlist([repr(value) for value in values.tolist()])}"
        )
    codes = labels.astype(np.int64)
    if x.dtype == np.uint8:
        return _ArrayImages(split, name, _channels_first(x, where), codes)
    if x.dtype.kind == "f":
        with np.errstate(over="ignore"):
            x = x.astype(np.float32)
        strange = np.flatnonzero(~np.isfinite(x).reshape(len(x), -1).all(1))
        if len(strange):
            raise DataError(
                f"{where}: {len(strange)} of {len(x)} rows of x have values that are not finite as float32, the first "
                f"is row {strange[0]}; replace them, or leave the rows out"
            )
        return ValueSplit(split, name, x, codes)
    if x.dtype.kind in "iub":
        if x.dtype.kind == "u" and x.max() > np.iinfo(np.int64).max:
            raise DataError(f"{where}: x has numbers above {np.iinfo(np.int64).max}, the largest of int64")
        return ValueSplit(split, name, x.astype(np.int64), codes)
    raise DataError(f"{where}: x is {_shown(x)}; give uint8 images, floating-point or whole numbers")


def _channels_first(x: npt.NDArray[np.uint8], where: str) -> npt.NDArray[np.uint8]:
    """Images (N, H, W) or (N, H, W, C) as (N, C, H, W)."""
    if x.ndim == 3:
        return x[:, None]
    if x.ndim == 4 and x.shape[1] in _CHANNELS:
        return x
    if x.ndim == 4 and x.shape[3] in _CHANNELS:
        return x.transpose(0, 3, 1, 2)
    raise DataError(
        f"{where}: x is {_shown(x)}; uint8 means images, (N, 1, 3 or 4 channels, height, width): for other inputs, "
        "return x.astype('float32')"
    )


def _shown(array: npt.NDArray[Any]) -> str:
    return f"{array.dtype} {tuple(array.shape)}"


class _ArrayImages(EncodedSplit):
    """Images uint8 (N, C, H, W), which are decoded as files with the same pixels are."""

    def __init__(self, name: str, where: str, images: npt.NDArray[np.uint8], labels: npt.NDArray[np.int64]) -> None:
        super().__init__(name, where)
        self._images, self._labels = images, labels

    def __len__(self) -> int:
        return len(self._images)

    def batches(self, size: int) -> Iterator[Batch]:
        from PIL import Image

        for start in range(0, len(self), size):
            rows: Sequence[npt.NDArray[np.uint8]] = list(self._images[start : start + size])
            pictures = (Image.fromarray(row[0] if len(row) == 1 else row.transpose(1, 2, 0).copy()) for row in rows)
            yield [encoded_image(picture) for picture in pictures], self._labels[start : start + size]
