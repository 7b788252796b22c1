"""The columns of a table: which of them has the images and which the labels, and the classes that the labels mean.

Importing this module imports neither datasets nor pyarrow.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from typing import Any

import numpy as np
import numpy.typing as npt

from relay.errors import DataError
from relay.text import shortlist
from src.config.schema import Columns

Labels = npt.NDArray[np.int64]
_STRINGS = ("string", "large_string", "string_view")
_IMAGES = "encoded images: the type Image, binary, or a struct of bytes and path"
_LABELS = "a ClassLabel, integers, strings or bools"


def check_columns(features: Mapping[str, Any], columns: Columns, where: str) -> None:
    """Raise DataError unless the columns of the configuration are there, and of types that images and labels have."""
    wanted = {"image": (columns.image, _is_image), "label": (columns.label, _is_label)}
    missing = []
    for key, (name, fits) in wanted.items():
        if name not in features:
            fitting = [each for each, feature in features.items() if fits(feature)]
            missing.append(f"no column {name!r} ({_advice(name, f'dataset.columns.{key}', fitting)})")
    if missing:
        raise DataError(f"{where}: there is {' and '.join(missing)}; its columns: {', '.join(features)}")
    for key, must in (("image", _IMAGES), ("label", _LABELS)):
        name, fits = wanted[key]
        if not fits(features[name]):
            paths = key == "image" and _may_be_paths(features[name])
            save = "store the bytes of the files that it names" if paths else "save it as one of these types"
            raise DataError(
                f"{where}: the column {name!r} is of type {_shown(features[name])}; it must be {must}; "
                f"name another column with dataset.columns.{key}, or {save}"
            )


def _advice(name: str, key: str, fitting: Sequence[str]) -> str:
    """How to name the column that was meant, of those whose types fit."""
    if len(fitting) == 1:
        return f"set {key}={fitting[0]}"
    near = get_close_matches(name, fitting, 1, 0.4)
    return f"set {key}={near[0]}" if near else f"set {key}" if fitting else "none has such values"


def _is_image(feature: Any) -> bool:
    import datasets

    encoded = feature.get("bytes") if isinstance(feature, dict) else feature
    return isinstance(feature, datasets.Image) or getattr(encoded, "dtype", "") in ("binary", "large_binary")


def _is_label(feature: Any) -> bool:
    import datasets

    if isinstance(feature, datasets.ClassLabel):
        return True
    # A sequence has a dtype, too.
    dtype = feature.dtype if isinstance(feature, datasets.Value) else ""
    return dtype.startswith(("int", "uint")) or dtype in ("bool", *_STRINGS)


def _may_be_paths(feature: Any) -> bool:
    return "path" in feature if isinstance(feature, dict) else getattr(feature, "dtype", "") in _STRINGS


def _shown(feature: Any) -> str:
    import datasets

    if isinstance(feature, dict):
        return f"struct of {' and '.join(feature)}"
    return str(feature.dtype) if isinstance(feature, datasets.Value) else type(feature).__name__


def read_labels(splits: Mapping[str, Any], column: str, shown: str) -> tuple[list[str], Iterator[Labels]]:
    """The class names, and the labels int64 (N,) of each split. `splits`: read with datasets; the first is trained on.

    Labels without names become classes in the order of their values in the first split, named by their text. Raises
    DataError for a label that is missing, or that the first split does not have.
    """
    import datasets

    features = {name: data.features[column] for name, data in splits.items()}
    first, feature = next(iter(features.items()))
    if isinstance(feature, datasets.ClassLabel):
        for name, other in features.items():
            if getattr(other, "names", None) != feature.names:
                raise DataError(f"{shown}: the splits {first!r} and {name!r} name different classes")
        return list(feature.names), (_numbers(data, column, name, shown) for name, data in splits.items())
    values = sorted(value for value in splits[first].data.column(column).unique().to_pylist() if value is not None)
    return [str(value) for value in values], (
        _positions(data, column, values, f"{shown}: split {name!r}", first) for name, data in splits.items()
    )


def _numbers(data: Any, column: str, name: str, shown: str) -> Labels:
    """The labels of a ClassLabel: they are the numbers of the classes."""
    labels: Labels = data.data.column(column).cast("int64").fill_null(-1).to_numpy().astype(np.int64)
    wrong = np.flatnonzero((labels < 0) | (labels >= data.features[column].num_classes))
    if len(wrong):
        has = "no label" if labels[wrong[0]] == -1 else f"the label {labels[wrong[0]]}"
        names = data.features[column].names
        raise DataError(
            f"{shown}: split {name!r}, image {wrong[0]} has {has}; its {len(names)} classes are numbered 0 to "
            f"{len(names) - 1}: {shortlist(names)}; correct it, or remove the row"
        )
    return labels


def _positions(data: Any, column: str, values: Sequence[Any], where: str, first: str) -> Labels:
    """The position of each label among `values`."""
    import pyarrow as pa
    import pyarrow.compute as pc

    labels = data.data.column(column)
    try:
        positions = pc.index_in(labels, value_set=pa.array(values).cast(labels.type)).fill_null(-1).to_numpy()
    except pa.ArrowInvalid:
        raise DataError(
            f"{where}: its labels are of type {labels.type}, unlike those of split {first!r}; save both as one type"
        ) from None
    wrong = np.flatnonzero(positions < 0)
    if len(wrong):
        value = labels[int(wrong[0])].as_py()
        problem = (
            "has no label; give it one, or remove the row"
            if value is None
            else f"has the label {value!r}, which no image of split {first!r} has; "
            f"its labels are {shortlist([repr(each) for each in values])}"
        )
        raise DataError(f"{where}, image {wrong[0]} {problem}")
    numbers: Labels = positions.astype(np.int64)
    return numbers
