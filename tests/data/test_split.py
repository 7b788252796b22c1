"""The validation and test split: exactly the report's; impossible sizes are refused with the nearest possible ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from relay.errors import DataError
from src.data.split import check_sizes, split_valid

REAL = Path(__file__).parents[3] / "shared" / "data" / "tiny-imagenet"


def reference_split(labels: list[int], num_classes: int, val: int, test: int, seed: int) -> tuple[list[int], list[int]]:
    """The rule of the report, in its simplest form."""
    generator = torch.Generator().manual_seed(seed)
    for_val: list[int] = []
    for_test: list[int] = []
    for label in range(num_classes):
        members = [i for i, found in enumerate(labels) if found == label]
        order = torch.randperm(len(members), generator=generator).tolist()
        shuffled = [members[i] for i in order]
        each_test, each_val = test // num_classes, val // num_classes
        for_test += shuffled[:each_test]
        for_val += shuffled[each_test : each_test + each_val]
    return for_val, for_test


def mixed_labels(classes: int = 10, each: int = 50) -> np.ndarray:
    return np.random.default_rng(0).permutation(np.repeat(np.arange(classes), each))


@pytest.mark.parametrize(("val", "test", "seed"), [(400, 100, 42), (100, 400, 42), (250, 0, 42), (400, 100, 7)])
def test_equals_the_rule(val, test, seed):
    labels = mixed_labels()
    found = split_valid(labels, 10, val, test, seed)
    expected = reference_split(labels.tolist(), 10, val, test, seed)
    assert [part.tolist() for part in found] == list(expected)
    assert all(part.dtype == np.int64 for part in found)


def test_numbers_that_must_never_change():
    """Sorted labels, 50 each, seed 42: the report's split begins with these indices."""
    val, test = split_valid(np.repeat(np.arange(200), 50), 200, 8000, 2000, 42)
    assert test[:10].tolist() == [42, 17, 30, 34, 20, 25, 0, 8, 36, 18]
    assert val[:5].tolist() == [28, 39, 3, 2, 41]
    assert (val[-1], test[-1]) == (9986, 9975)


def test_parts_are_disjoint_and_balanced():
    labels = mixed_labels()
    val, test = split_valid(labels, 10, 300, 100, 42)
    assert not set(val.tolist()) & set(test.tolist())
    assert np.bincount(labels[val]).tolist() == [30] * 10
    assert np.bincount(labels[test]).tolist() == [10] * 10


def test_the_first_classes_are_split_as_they_are_among_all():
    labels = mixed_labels()
    all_val, all_test = split_valid(labels, 10, 400, 100, 42)
    val, test = split_valid(labels, 4, 160, 40, 42)
    assert val.tolist() == all_val[:160].tolist()
    assert test.tolist() == all_test[:40].tolist()


def test_one_generator_for_all_classes():
    """With a generator per class, every class of a sorted data set would get the same pattern."""
    _, test = split_valid(np.repeat(np.arange(2), 50), 2, 80, 20, 42)
    assert test[:10].tolist() != (test[10:] - 50).tolist()


def test_global_generator_is_left_alone():
    before = torch.get_rng_state()
    split_valid(mixed_labels(), 10, 400, 100, 42)
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize(
    ("val", "test", "message"),
    [
        (405, 100, r"split.val: 405 does not divide into 10 classes evenly; the nearest that do: 400 or 410"),
        (400, 7, r"split.test: 7 does not divide .*: 10$"),
        (600, 200, r"80 images of each class, and label 3 has 40 .* 400 at most: .*val=300 dataset.split.test=100$"),
        (600, 0, r"set dataset.split.val=400 dataset.split.test=0$"),
    ],
)
def test_impossible_sizes_are_refused_with_possible_ones(val, test, message):
    labels = mixed_labels()
    labels = np.delete(labels, np.flatnonzero(labels == 3)[:10])
    for refusal in (lambda: split_valid(labels, 10, val, test, 42), lambda: check_sizes(labels, 10, val, test)):
        with pytest.raises(DataError, match=message):
            refusal()


def test_the_sizes_that_a_refusal_names_are_accepted():
    labels = mixed_labels(each=40)
    with pytest.raises(DataError, match=r"val=300 dataset\.split\.test=100"):
        split_valid(labels, 10, 600, 200, 42)
    val, test = split_valid(labels, 10, 300, 100, 42)
    assert (len(val), len(test)) == (300, 100)


def test_a_class_without_images_is_named():
    labels = mixed_labels()
    with pytest.raises(DataError, match=r"label 3 has 0 .*dataset\.classes"):
        check_sizes(labels[labels != 3], 10, 400, 100)
    check_sizes(labels[labels != 3], 3, 120, 30)


@pytest.mark.skipif(not REAL.is_dir(), reason=f"the real Tiny ImageNet is not at {REAL}")
def test_real_valid_split():
    import pyarrow.parquet as pq

    [shard] = (REAL / "data").glob("valid-*.parquet")
    labels = pq.read_table(shard, columns=["label"])["label"].to_numpy()
    found = split_valid(labels, 200, 8000, 2000, 42)
    assert [part.tolist() for part in found] == list(reference_split(labels.tolist(), 200, 8000, 2000, 42))
    with pytest.raises(DataError, match="at most"):
        split_valid(labels, 200, 8200, 2000, 42)
