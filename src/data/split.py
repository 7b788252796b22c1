"""Which images are train, val and test: whole splits of the source, or images drawn class by class from one seed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from relay.errors import DataError
from src.config.schema import Split

Indices = npt.NDArray[np.int64]
Labels = npt.NDArray[Any]


class Part(NamedTuple):
    """The images of train, val or test: the name of their split in the source, and their indices in it, int64 (N,)."""

    source: str
    indices: Indices


def split_images(split: Split, labels: Mapping[str, Labels], classes: int, each: int | None = None) -> dict[str, Part]:
    """The parts `train`, `val` and `test`, without an image in two of them; a pure function of the parameters.

    `labels`: of each split in `split.names`, int (N,); the images of `classes` and above are left out, and do not
    change what is drawn of the others. `each`: only the first so many training images of every class. train is in the
    order of the source, val and test in the order of their classes. test may be empty.

    Raises DataError if a part that is wanted has no images, or there are fewer than are wanted.
    """
    wanted = {"val": split.val, "test": split.test}
    parts = {
        name: Part(source, _whole(name, source, labels[source], classes))
        for name, source in wanted.items()
        if isinstance(source, str)
    }
    pool = split.pool
    if pool is not None:
        sizes = _sizes(split, _counts(labels[pool], classes))
        drawn = _draw(labels[pool], _shares(split, sizes, _counts(labels[pool], classes)), split.seed)
        parts |= {name: Part(pool, indices) for name, indices in drawn.items() if name not in parts}
    parts.setdefault("test", Part(parts["val"].source, np.empty(0, np.int64)))
    taken = [part.indices for part in parts.values() if part.source == split.train]
    return {"train": Part(split.train, _rest(split.train, labels[split.train], classes, taken, each)), **parts}


def permutation(bits: np.random.RandomState, count: int) -> Indices:
    """What torch.randperm(count) gives on a CPU if its generator is in the state of `bits`; both advance alike.

    The login node has no torch. Its generator is the same Mersenne Twister, and it shuffles by Fisher and Yates.
    """
    order = list(range(count))
    for place, drawn in enumerate(bits.randint(0, 2**32, max(count - 1, 0), dtype=np.uint32).tolist()):
        other = place + drawn % (count - place)
        order[place], order[other] = order[other], order[place]
    return np.array(order, dtype=np.int64)


def _counts(labels: Labels, classes: int) -> Indices:
    """The number of images of each class."""
    return np.bincount(labels[labels < classes], minlength=classes)


def _whole(name: str, source: str, labels: Labels, classes: int) -> Indices:
    """All images of the classes, in the order of the classes: crossed.py takes every other one of val."""
    order = np.argsort(labels, kind="stable")
    found: Indices = order[labels[order] < classes].astype(np.int64)
    if not len(found):
        raise DataError(
            f"dataset.split.{name}: the split {source!r} has no images of the {classes} classes; name another split, "
            "or give a number or a share of images"
        )
    return found


def _sizes(split: Split, counts: Indices) -> dict[str, int]:
    """How many images are drawn for test and for val, from a split with `counts` images of each class."""
    there, sizes = int(counts.sum()), dict[str, int]()
    # One image of each class is left to train on.
    most = there - (np.count_nonzero(counts) if split.pool == split.train else 0)
    for name, wanted in (("test", split.test), ("val", split.val)):
        sizes[name] = 0 if isinstance(wanted, str) else round(wanted * there) if isinstance(wanted, float) else wanted
        if isinstance(wanted, float) and not sizes[name]:
            raise DataError(
                f"dataset.split.{name}: {wanted} of the {there} images of split {split.pool!r} is less than one; set "
                f"a larger share or a number of images, such as dataset.split.{name}=1"
            )
    if sum(sizes.values()) > most:
        raise DataError(_too_many(split, sizes, there, int(most)))
    return sizes


def _too_many(split: Split, sizes: Mapping[str, int], there: int, most: int) -> str:
    drawn = {name: sizes[name] for name in ("val", "test") if sizes[name]}
    asked = " and ".join(f"{name}={size}" for name, size in drawn.items())
    kept = ", and one of each class is left to train on" if split.pool == split.train else ""
    start = f"dataset.split: {asked} cannot be drawn from the {there} images of split {split.pool!r}{kept}; "
    if most < len(drawn):
        return start + "take them from splits with more images: dataset.split.valid, or dataset.split.val=NAME"
    # In the same proportion.
    test = min(max(1, most * drawn["test"] // sum(drawn.values())), most - len(drawn) + 1) if "test" in drawn else 0
    fitting = {"val": most - test, "test": test}
    advice = " ".join(f"dataset.split.{name}={fitting[name]}" for name in drawn)
    return f"{start}at most {most} images can be: set {advice}"


def _shares(split: Split, sizes: Mapping[str, int], counts: Indices) -> dict[str, Indices]:
    """How many images of each class are drawn for each part: in proportion to the classes, by largest remainder."""
    room = counts - (counts > 0) if split.pool == split.train else counts
    shares: dict[str, Indices] = {}
    for name, size in sizes.items():
        shares[name] = _apportioned(size, counts, room)
        room = room - shares[name]
    return shares


def _apportioned(size: int, counts: Indices, room: Indices) -> Indices:
    """`size` images in proportion to `counts`, (classes,), and at most `room` of each class."""
    there = max(int(counts.sum()), 1)
    shares = np.minimum(size * counts // there, room)
    # The largest remainder first; of equal ones, the first class.
    order = np.argsort(-(size * counts % there), kind="stable")
    while missing := size - int(shares.sum()):
        shares[order[shares[order] < room[order]][:missing]] += 1
    return shares


def _draw(labels: Labels, shares: Mapping[str, Indices], seed: int) -> dict[str, Indices]:
    """This is the report's split: the images of each class are permuted; the first go to test, the next to val."""
    # One generator for all classes: with one for each, every class of a sorted data set would get the same pattern.
    # torch, too, uses the lower 32 bits of a seed.
    bits = np.random.RandomState(seed & 0xFFFFFFFF)
    drawn: dict[str, list[Indices]] = {name: [] for name in shares}
    for label in range(len(next(iter(shares.values())))):
        members = np.flatnonzero(labels == label).astype(np.int64)
        shuffled, start = members[permutation(bits, len(members))], 0
        for name, share in shares.items():
            drawn[name].append(shuffled[start : start + share[label]])
            start += share[label]
    return {name: np.concatenate(each) for name, each in drawn.items()}


def _rest(source: str, labels: Labels, classes: int, taken: Sequence[Indices], each: int | None) -> Indices:
    """Indices of the images that are in no other part: of all, or of the first `each` of every class."""
    free = labels < classes
    for indices in taken:
        free[indices] = False
    if each is None:
        return np.flatnonzero(free)
    counts = _counts(labels[free], classes)
    if counts.min() < each:
        raise DataError(
            f"dataset.train_per_class: {each}, but label {counts.argmin()} of split {source!r} has {counts.min()} "
            f"images to train on; set dataset.train_per_class={counts.min()} or less, or null to take all"
        )
    return np.sort(np.concatenate([np.flatnonzero(free & (labels == label))[:each] for label in range(classes)]))
