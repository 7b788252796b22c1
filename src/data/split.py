"""The stratified split of the `valid` images into validation and test, drawn from one seed."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from relay.errors import DataError

Indices = npt.NDArray[np.int64]


def split_valid(labels: npt.NDArray[Any], num_classes: int, val: int, test: int, seed: int) -> tuple[Indices, Indices]:
    """Indices into `labels`, int (N,), for validation (val,) and test (test,): disjoint, with equally many per class.

    This is the report's split. For each class in label order, torch.randperm permutes its indices, with one generator
    for all classes; the first go to test, the next to val. Labels of `num_classes` and above are ignored, and do not
    change the split of the others.

    Raises DataError if `val` or `test` is not divisible by `num_classes`, or a class has too few images.
    """
    import torch

    check_sizes(labels, num_classes, val, test)
    # One generator for all classes: with one for each, every class of a sorted data set would get the same pattern.
    generator = torch.Generator().manual_seed(seed)
    for_val: list[Indices] = []
    for_test: list[Indices] = []
    cut, end = test // num_classes, (test + val) // num_classes
    for label in range(num_classes):
        members = np.flatnonzero(labels == label).astype(np.int64)
        shuffled = members[torch.randperm(len(members), generator=generator).numpy()]
        for_test.append(shuffled[:cut])
        for_val.append(shuffled[cut:end])
    return np.concatenate(for_val), np.concatenate(for_test)


def check_sizes(labels: npt.NDArray[Any], num_classes: int, val: int, test: int) -> None:
    """Raise DataError in the same cases as `split_valid`, without torch, for the login node."""
    _check_divides(val, test, num_classes)
    counts = np.bincount(labels[labels < num_classes], minlength=num_classes)
    _check_enough(counts, val // num_classes, test // num_classes)


def _check_divides(val: int, test: int, num_classes: int) -> None:
    for name, count in (("val", val), ("test", test)):
        if count % num_classes:
            lower, upper = count - count % num_classes, count - count % num_classes + num_classes
            near = f"{lower} or {upper}" if lower else f"{upper}"
            raise DataError(
                f"dataset.split.{name}: {count} does not divide into {num_classes} classes evenly; "
                f"the nearest that do: {near}"
            )


def _check_enough(counts: npt.NDArray[Any], val_each: int, test_each: int) -> None:
    """Refuse sizes the smallest class is too small for; suggest the largest possible ones in the same proportion."""
    label, there, classes = int(counts.argmin()), int(counts.min()), len(counts)
    wanted = val_each + test_each
    if there >= wanted:
        return
    asked = f"dataset.split: val={val_each * classes} and test={test_each * classes} need {wanted} images of each class"
    found = f"label {label} has {there} in the valid split"
    if there == 0:
        raise DataError(f"{asked}, and {found}; take fewer classes with dataset.classes and model.num_classes")
    test_most = min(max(1, there * test_each // wanted), there - 1) if test_each else 0
    val_most = there - test_most
    raise DataError(
        f"{asked}, and {found}; val and test together can be {there * classes} at most: "
        f"set dataset.split.val={val_most * classes} dataset.split.test={test_most * classes}"
    )
