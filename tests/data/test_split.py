"""Which images are in which part: the report's split exactly, and what is promised of any other one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from relay.errors import DataError
from src.config.schema import Split
from src.data.split import Part, permutation, split_images

REAL = Path(__file__).parents[3] / "shared" / "data" / "tiny-imagenet"
Labels = npt.NDArray[np.int64]


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


def mixed_labels(classes: int = 10, each: int = 50) -> Labels:
    return np.random.default_rng(0).permutation(np.repeat(np.arange(classes), each))


def drawn(labels: Labels, classes: int, val: Any, test: Any, seed: int = 42) -> tuple[Labels, Labels]:
    """val and test drawn from `valid`."""
    split = Split(val=val, test=test, seed=seed)
    parts = split_images(split, {"train": np.arange(classes), "valid": labels}, classes)
    assert {parts[name].source for name in ("val", "test")} == {"valid"}
    return parts["val"].indices, parts["test"].indices


def carved(labels: Labels, classes: int, each: int | None = None, **split: Any) -> dict[str, Labels]:
    """All three parts out of `train`."""
    parts = split_images(Split(valid=None, **split), {"train": labels}, classes, each)
    assert {part.source for part in parts.values()} == {"train"}
    return {name: part.indices for name, part in parts.items()}


@pytest.mark.parametrize("seed", [0, 1, 42, 2**31, 2**32 - 1, 2**32, 2**40 + 7, 2**63 - 1, -1, -(2**63)])
@pytest.mark.parametrize("count", [0, 1, 2, 3, 623, 625, 5000])
def test_a_permutation_is_that_of_torch(seed: int, count: int):
    bits, generator = np.random.RandomState(seed & 0xFFFFFFFF), torch.Generator().manual_seed(seed)
    for _ in range(3):
        assert permutation(bits, count).tolist() == torch.randperm(count, generator=generator).tolist()


def test_a_large_permutation_is_that_of_torch():
    for count in (2**16, 2**16 + 1, 300_000):
        expected = torch.randperm(count, generator=torch.Generator().manual_seed(9))
        assert np.array_equal(permutation(np.random.RandomState(9), count), expected.numpy())


@pytest.mark.parametrize("seed", [42, 7, -3, 2**32 + 1])
@pytest.mark.parametrize(("val", "test"), [(400, 100), (100, 400), (250, 0)])
def test_equals_the_rule(val: int, test: int, seed: int):
    labels = mixed_labels()
    found = drawn(labels, 10, val, test, seed)
    expected = reference_split(labels.tolist(), 10, val, test, seed)
    assert [part.tolist() for part in found] == list(expected)
    assert all(part.dtype == np.int64 for part in found)


def test_numbers_that_must_never_change():
    """Sorted labels, 50 each, seed 42: the report's split begins with these indices."""
    val, test = drawn(np.repeat(np.arange(200), 50), 200, 8000, 2000)
    assert test[:10].tolist() == [42, 17, 30, 34, 20, 25, 0, 8, 36, 18]
    assert val[:5].tolist() == [28, 39, 3, 2, 41]
    assert (val[-1], test[-1]) == (9986, 9975)


def test_shares_are_the_sizes_that_they_come_to():
    labels = mixed_labels()
    for shares, sizes in (((0.8, 0.2), (400, 100)), ((0.25, 0), (125, 0)), ((0.111, 3), (56, 3))):
        found, expected = drawn(labels, 10, *shares), drawn(labels, 10, *sizes)
        assert [part.tolist() for part in found] == [part.tolist() for part in expected]


def test_the_first_classes_are_split_as_they_are_among_all():
    labels = mixed_labels()
    all_val, all_test = drawn(labels, 10, 400, 100)
    val, test = drawn(labels, 4, 160, 40)
    assert val.tolist() == all_val[:160].tolist()
    assert test.tolist() == all_test[:40].tolist()


def test_one_generator_for_all_classes():
    """With a generator per class, every class of a sorted data set would get the same pattern."""
    _, test = drawn(np.repeat(np.arange(2), 50), 2, 80, 20)
    assert test[:10].tolist() != (test[10:] - 50).tolist()


def test_global_generators_are_left_alone():
    before, numpys = torch.get_rng_state(), np.random.get_state()[1].tolist()  # type: ignore[index]
    drawn(mixed_labels(), 10, 400, 100)
    assert torch.equal(before, torch.get_rng_state())
    assert np.random.get_state()[1].tolist() == numpys  # type: ignore[index]


def random_case(number: int) -> tuple[Labels, int, int, int]:
    """Labels of classes of uneven size in any order, the number of classes, and sizes that fit a carved split."""
    rng = np.random.default_rng(number)
    classes = int(rng.integers(2, 30))
    counts = rng.integers(0, [3, 20, 400][number % 3], classes) + 1
    labels = rng.permutation(np.repeat(np.arange(classes), counts))
    most = len(labels) - classes
    test = int(rng.integers(0, max(most, 1)))
    return labels, classes, int(rng.integers(1, max(most - test, 1) + 1)), test


@pytest.mark.parametrize("number", range(60))
def test_any_sizes_of_uneven_classes(number: int):
    labels, classes, val, test = random_case(number)
    if val + test > len(labels) - classes:
        pytest.skip("every class has one image")
    for seed in range(3):
        parts = carved(labels, classes, val=val, test=test, seed=seed)
        whole = np.concatenate(list(parts.values()))
        assert sorted(whole.tolist()) == list(range(len(labels))), "each image is in one part"
        assert (len(parts["val"]), len(parts["test"])) == (val, test)
        assert np.bincount(labels[parts["train"]], minlength=classes).min() >= 1
        assert (np.diff(labels[parts["val"]]) >= 0).all(), "in the order of the classes, as crossed.py needs it"
        assert (np.diff(parts["train"]) > 0).all()


@pytest.mark.parametrize("number", range(60))
def test_each_class_has_its_share(number: int):
    labels, classes, val, test = random_case(number)
    for name, part in zip(("val", "test"), drawn(labels, classes, val, test), strict=True):
        shares = len(part) * np.bincount(labels, minlength=classes) / len(labels)
        assert (np.abs(np.bincount(labels[part], minlength=classes) - shares) <= 1).all(), name
    # Where one image of each class has to be left, the others still have theirs.
    few = max(1, len(labels) // 20)
    parts = carved(labels, classes, val=few, test=few)
    for name in ("val", "test"):
        shares = few * np.bincount(labels, minlength=classes) / len(labels)
        assert (np.abs(np.bincount(labels[parts[name]], minlength=classes) - shares) <= 1).all(), name


def test_a_class_with_one_image_is_trained_on():
    labels = np.array([0] * 50 + [1] + [2] * 9)
    parts = carved(labels, 3, val=20, test=20)
    assert 50 in parts["train"]
    assert {name: np.bincount(labels[part], minlength=3).tolist() for name, part in parts.items()} == {
        "train": [16, 1, 3],
        "val": [17, 0, 3],
        "test": [17, 0, 3],
    }


def test_train_per_class_takes_the_first_that_are_left():
    labels = mixed_labels()
    whole, some = carved(labels, 10, val=100, test=50), carved(labels, 10, each=7, val=100, test=50)
    assert [some[name].tolist() for name in ("val", "test")] == [whole[name].tolist() for name in ("val", "test")]
    first = [i for label in range(10) for i in [i for i in whole["train"].tolist() if labels[i] == label][:7]]
    assert some["train"].tolist() == sorted(first)
    with pytest.raises(DataError, match=r"train_per_class: 36, .* has 35 images to train on; .*=35 or less"):
        carved(labels, 10, each=36, val=100, test=50)


def test_named_splits_are_taken_whole_in_the_order_of_their_classes():
    labels = {"train": mixed_labels(4, 9), "dev": mixed_labels(4, 5), "test": np.array([3, 2, 2, 0])}
    parts = split_images(Split(val="dev", test="test"), labels, 3)
    assert parts["train"] == Part("train", parts["train"].indices)
    assert parts["train"].indices.tolist() == np.flatnonzero(labels["train"] < 3).tolist()
    assert (parts["val"].source, len(parts["val"].indices)) == ("dev", 15)
    assert (np.diff(labels["dev"][parts["val"].indices]) >= 0).all()
    assert (parts["test"].source, parts["test"].indices.tolist()) == ("test", [3, 1, 2])


def test_val_from_train_beside_a_test_split():
    labels = {"train": mixed_labels(4, 9), "test": mixed_labels(4, 5)}
    parts = split_images(Split(valid=None, val=0.25, test="test"), labels, 4)
    assert {name: (part.source, len(part.indices)) for name, part in parts.items()} == {
        "train": ("train", 27),
        "val": ("train", 9),
        "test": ("test", 20),
    }
    assert not set(parts["train"].indices.tolist()) & set(parts["val"].indices.tolist())


def test_val_only():
    parts = split_images(Split(val="dev", test=0), {"train": np.arange(3), "dev": np.arange(3)}, 3)
    assert (len(parts["val"].indices), parts["test"].source, len(parts["test"].indices)) == (3, "dev", 0)


@pytest.mark.parametrize(
    ("split", "message"),
    [
        ({"val": 600, "test": 200}, r"val=600 and test=200 .* from the 490 .* 'valid'; .* set .*val=368 .*test=122$"),
        ({"val": 600, "test": 0}, r"val=600 cannot be drawn .*: set dataset\.split\.val=490$"),
        ({"val": "train2", "test": 600}, r"test=600 cannot .*: set dataset\.split\.test=490$"),
        ({"val": 489, "test": 2}, r"val=489 dataset\.split\.test=1$"),
        (
            {"valid": None, "val": 300, "test": 195},
            r"495 images .* 'train', and one of each class .* 485 images",
        ),
        ({"val": 0.001, "test": 0}, r"split\.val: 0\.001 of the 490 .* less than one; .* dataset\.split\.val=1$"),
        ({"val": 5, "test": 0.0001}, r"split\.test: 0\.0001 of the 490 .* dataset\.split\.test=1$"),
        ({"val": "empty", "test": 0}, r"split\.val: the split 'empty' has no images of the 10 classes; name another"),
    ],
)
def test_impossible_sizes_are_refused_with_possible_ones(split: dict[str, Any], message: str):
    labels = mixed_labels()
    few = np.delete(labels, np.flatnonzero(labels == 3)[:10])
    there = {"train": np.append(few, [0, 1, 2, 4, 5]), "train2": labels, "valid": few, "empty": np.array([10, 11])}
    with pytest.raises(DataError, match=message) as refused:
        split_images(Split(**split), there, 10)
    said = [word.strip(";").split("=") for word in str(refused.value).split() if word.startswith("dataset.split.")]
    advised = {key.rpartition(".")[2]: int(value) for key, value in (pair for pair in said if len(pair) == 2)}
    if advised:
        split_images(Split(**{**split, **advised}), there, 10)


def test_too_few_images_for_any_size():
    with pytest.raises(DataError, match=r"from the 3 images of split 'train', and one .*; take them from splits with"):
        carved(np.arange(3), 3, val=1, test=0)


def test_a_class_without_images_has_none_in_the_parts():
    labels = mixed_labels()
    val, test = drawn(labels[labels != 3], 10, 400, 50)
    assert np.bincount(labels[labels != 3][np.append(val, test)], minlength=10)[3] == 0


@pytest.mark.skipif(not REAL.is_dir(), reason=f"the real Tiny ImageNet is not at {REAL}")
def test_real_valid_split():
    import pyarrow.parquet as pq

    [shard] = (REAL / "data").glob("valid-*.parquet")
    labels = pq.read_table(shard, columns=["label"])["label"].to_numpy()
    found = drawn(labels, 200, 8000, 2000)
    assert [part.tolist() for part in found] == list(reference_split(labels.tolist(), 200, 8000, 2000, 42))
    with pytest.raises(DataError, match="at most"):
        drawn(labels, 200, 8200, 2000)
