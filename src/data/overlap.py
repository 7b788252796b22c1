"""Images that would be measured although they were trained on: what is refused before a run starts."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence

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


def check_overlap(config: Config, used: Mapping[str, Digests]) -> None:
    """Check the images that are trained on, and those that val and test are drawn from; `used` has them by their split.

    Raises DataError if more than the share dataset.allowed_overlap of a split that is measured is also trained on, or
    is in val and in test, or if so many images of a split that is divided occur in it more than once.
    """
    split = config.dataset.split
    val = split.val if isinstance(split.val, str) else split.pool
    test = split.test if isinstance(split.test, str) else split.pool if split.test else None
    for name in dict.fromkeys((val, test)):
        if name is not None and name != split.train:
            where = f"are also in split {split.train!r}, which is trained on"
            _refuse_more(config, name, len(used[name]), count_shared(used[name], used[split.train]), where)
    if test is not None and test != val and split.train not in (val, test):
        shared = count_shared(used[test], used[str(val)])
        _refuse_more(config, test, len(used[test]), shared, f"are also in split {val!r}, which val is taken from")
    if split.pool is not None and (split.pool == split.train or val == test):
        pool = used[split.pool]
        copies = len(pool) - len(np.unique(pool))
        parts = "train, val and test" if split.pool == split.train else "val and test"
        _refuse_more(config, split.pool, len(pool), copies, f"are copies of others in it, and {parts} would share them")


def _refuse_more(config: Config, name: str, there: int, count: int, where: str) -> None:
    """Raise DataError if `count` of the images of split `name` are more than the share that is allowed."""
    if count <= config.dataset.allowed_overlap * there:
        return
    split = config.dataset.split
    roles = [part for part in ("val", "test") if name in (getattr(split, part), split.pool)]
    drawn = name == split.pool
    use = f"from which {' and '.join(roles)} are drawn" if drawn else f"which is {' and '.join(roles)}"
    key = "valid" if drawn and name != split.train else roles[0]
    least = math.ceil(1000 * count / there) / 1000
    raise DataError(
        f"dataset.name: {config.dataset.name}: {count} of the {there} images of split {name!r}, {use}, {where}; that "
        f"is more than the share dataset.allowed_overlap {config.dataset.allowed_overlap}. Remove them, or name a "
        f"split of other images with dataset.split.{key}; to accept them, set dataset.allowed_overlap={least}"
    )


def check_test_split(config: Config, others: Sequence[str]) -> None:
    """Raise DataError if test images would be drawn from a split although there is a test split, one of `others`, the
    splits that are not read.
    """
    split = config.dataset.split
    tests = [name for name in others if _is_test(name)]
    if tests and split.test and split.pool and not isinstance(split.test, str) and not _is_test(split.pool):
        raise DataError(
            f"dataset.name: {config.dataset.name} has the split {tests[0]!r} beside "
            f"{' and '.join(map(repr, split.names))}, but dataset.split.test={split.test} draws the test images from "
            f"{split.pool!r}. Set "
            f"dataset.split.test={tests[0]} to measure on it, or dataset.split.test=0 to measure on val alone"
        )


def _is_test(name: str) -> bool:
    return not _TEST.isdisjoint(re.split(r"[^a-z]+", name.lower()))
