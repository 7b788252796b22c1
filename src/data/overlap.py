"""Images that would be measured although they were trained on: what is refused before a run starts."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from relay.errors import DataError
from src.config.schema import Config

Digests = npt.NDArray[np.uint64]
# What datasets takes for a test split.
_TEST = {"test", "testing", "eval", "evaluation"}


def count_shared(digests: Digests, others: Digests) -> int:
    """How many of the images with `digests`, (N,), are also among `others`, (M,)."""
    return int(np.isin(digests, others).sum())


def check_overlap(config: Config, train: Digests, valid: Digests) -> None:
    """Check the images that are trained on, and those that val and test are drawn from.

    Raises DataError if more than the share dataset.allowed_overlap of `valid` is also in `train`, or occurs more than
    once in `valid`, so that copies of one image may end in val and in test.
    """
    split = config.dataset.split
    _, first = np.unique(valid, return_index=True)
    for count, where in (
        (count_shared(valid, train), f"are also in split {split.train!r}, which is trained on"),
        (len(valid) - len(first), "are copies of others in it, and val and test would share them"),
    ):
        if count > config.dataset.allowed_overlap * len(valid):
            least = math.ceil(1000 * count / len(valid)) / 1000
            raise DataError(
                f"dataset.name: {config.dataset.name}: {count} of the {len(valid)} images of split {split.valid!r}, "
                f"from which val and test are drawn, {where}; that is more than the share dataset.allowed_overlap "
                f"{config.dataset.allowed_overlap}. Remove them, or name a split of other images with "
                f"dataset.split.valid; to accept them, set dataset.allowed_overlap={least}"
            )


def check_test_split(config: Config, others: Sequence[str]) -> None:
    """Raise DataError if test images would be drawn from the valid split although there is a test split, one of
    `others`, the splits that are not read.
    """
    split = config.dataset.split
    tests = [name for name in others if _is_test(name)]
    if tests and split.test and not _is_test(split.valid):
        raise DataError(
            f"dataset.name: {config.dataset.name} has the split {tests[0]!r} beside {split.train!r} and "
            f"{split.valid!r}, but dataset.split.test={split.test} draws the test images from {split.valid!r}: taking "
            f"all three is not supported yet. Set dataset.split.valid={tests[0]} to draw val and test from it, or "
            f"dataset.split.test=0 to measure on val alone"
        )


def _is_test(name: str) -> bool:
    return not _TEST.isdisjoint(re.split(r"[^a-z]+", name.lower()))
