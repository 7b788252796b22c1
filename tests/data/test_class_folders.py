"""Image files in class folders: which are read, as which class, and what is refused."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from torchvision.datasets import ImageFolder

from relay.errors import DataError
from src.config.schema import Config
from src.data.cache import Arrays, ensure, read_arrays, read_meta
from src.data.files import walk
from tests.data.images import make

NO_POOL = {"valid": None, "val": 2, "test": 0}
TRAIN = ("train/cat/1.jpg", "train/cat/2.JPG", "train/dog/b/3.png", "train/dog/a.png")
VALID = ("valid/dog/4.jpeg", "valid/cat/5.bmp")


def save(folder: Path, *names: str) -> Path:
    """Image files of one colour each, which the digits in its name give."""
    for number, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (10, 8), (number * 20, 50, len(name))).save(path)
    return folder


@pytest.fixture
def own(tmp_path: Path) -> Path:
    return save(tmp_path / "own", *TRAIN, *VALID)


def config_of(folder: Path, split: dict[str, Any] | None = None) -> Config:
    return make(folder, folder.parent / "root", {"dataset.split": split} if split else None, (8, 10))


def arrays_of(config: Config) -> tuple[list[str], dict[str, Arrays]]:
    place = ensure(config)
    return read_meta(place)["class_names"], read_arrays(place)


def test_images_are_those_of_torchvision_in_its_order(own: Path):
    save(
        own,
        "train/cat/w/100.png",
        "train/cat/x/1.png",
        "train/cat-b/y.webp",
        "train/cat/x-y/2.png",
        "valid/dog/.hidden.png",
    )
    names, arrays = arrays_of(config_of(own))
    assert names == ["cat", "cat-b", "dog"]
    for split in ("train", "valid"):
        expected = ImageFolder(str(own / split), allow_empty=True, is_valid_file=lambda path: "/." not in path)
        assert len(arrays[split].images) == len(expected)
        for (pixels, _), image in zip(expected, arrays[split].images, strict=True):
            assert np.array_equal(np.asarray(pixels).transpose(2, 0, 1), image)
        classes = [expected.classes[label] for label in expected.targets]
        assert [names[label] for label in arrays[split].labels] == classes
    assert read_meta(ensure(config_of(own)))["other_splits"] == []


def test_other_files_are_skipped_and_counted(own: Path, capsys: pytest.CaptureFixture[str]):
    for name in (
        "train/notes.txt",
        "train/cat/._1.jpg",
        "train/cat/.DS_Store",
        "train/dog/labels.csv",
        "train/dog/jpg",
    ):
        (own / name).write_text("no image")
    (own / "train" / ".cache" / "deep").mkdir(parents=True)
    _, arrays = arrays_of(config_of(own))
    assert len(arrays["train"].images) == 4
    said = capsys.readouterr().err
    assert "skipped 5 files of split 'train' that are no images: train/cat/.DS_Store, train/cat/._1.jpg, train/" in said
    assert "of split 'valid'" not in said


@pytest.mark.parametrize("there", ["val", "validation", "dev"])
def test_valid_may_be_called_otherwise(own: Path, there: str):
    (own / "valid").rename(own / there)
    assert len(arrays_of(config_of(own))[1]["valid"].images) == 2


def test_only_train_and_a_test_split(own: Path):
    save(own, "test/cat/7.png")
    _, arrays = arrays_of(config_of(own, {**NO_POOL, "test": "test"}))
    assert [(name, len(each.images)) for name, each in arrays.items()] == [("train", 4), ("test", 1)]
    assert read_meta(ensure(config_of(own, NO_POOL)))["other_splits"] == ["test", "valid"]


def test_the_folder_itself_has_the_classes(tmp_path: Path):
    own = save(tmp_path / "own", "cat/1.jpg", "test/2.jpg", "train/3.jpg", "train/deep/4.jpg", "valid/5.jpg")
    names, arrays = arrays_of(config_of(own, {"train": ".", **NO_POOL}))
    assert names == ["cat", "test", "train", "valid"]
    assert arrays["."].labels.tolist() == [0, 1, 2, 2, 3]
    assert read_meta(ensure(config_of(own, {"train": ".", **NO_POOL})))["other_splits"] == []


def test_classes_may_be_called_as_splits(tmp_path: Path):
    own = save(tmp_path / "own", "train/test/1.jpg", "train/train/2.jpg", "valid/train/3.jpg")
    names, arrays = arrays_of(config_of(own))
    assert (names, arrays["valid"].labels.tolist()) == (["test", "train"], [1])


def test_a_folder_in_its_own_root(own: Path):
    config = make(own, own, None, (8, 10))
    place = ensure(config)
    assert ensure(config) == place
    assert read_meta(place)["class_names"] == ["cat", "dog"]
    whole = save(own.parent / "whole", "a/1.png", "b/2.png")
    change = {"dataset.split": {"train": ".", **NO_POOL}}
    ensure(make(whole, whole, change, (8, 10)))
    assert read_meta(ensure(make(whole, whole, change, (8, 11))))["class_names"] == ["a", "b"]


def test_links_inside_are_followed(own: Path):
    (own / "valid" / "cat" / "link.jpg").symlink_to("../../train/cat/1.jpg")
    (own / "valid" / "dog" / "more").symlink_to(own / "train" / "dog")
    _, arrays = arrays_of(config_of(own))
    assert np.bincount(arrays["valid"].labels).tolist() == [2, 3]
    for each in ("cat", "dog"):
        os.utime(own / "train" / each, (1, 1))
    before = ensure(config_of(own))
    (own / "valid" / "dog" / "more").unlink()
    (own / "valid" / "dog" / "more").symlink_to(own / "train" / "cat")
    assert ensure(config_of(own)) != before, "another link is other data"


def link_a_file(own: Path) -> None:
    (own / "train" / "cat" / "6.jpg").symlink_to(save(own.parent / "secret", "a.jpg") / "a.jpg")


def link_a_folder(own: Path) -> None:
    (own / "train" / "cat" / "more").symlink_to(save(own.parent / "secret", "a.jpg"))


def link_in_a_circle(own: Path) -> None:
    (own / "train" / "cat" / "more").symlink_to(own / "train")


def leave_a_class_empty(own: Path) -> None:
    (own / "train" / "eel" / "deep").mkdir(parents=True)
    (own / "train" / "eel" / "deep" / "notes.txt").touch()


def add_a_class_to_valid(own: Path) -> None:
    save(own, "valid/Dog/1.png")


def put_an_image_beside_classes(own: Path) -> None:
    save(own, "train/6.png")


def break_an_image(own: Path) -> None:
    path = own / "train" / "dog" / "a.png"
    path.write_bytes(path.read_bytes()[:50])


def rename_valid(own: Path) -> None:
    (own / "valid").rename(own / "held_out")


def leave_only_classes(own: Path) -> None:
    shutil.rmtree(own / "valid")
    for path in list((own / "train").iterdir()):
        path.rename(own / path.name)
    (own / "train").rmdir()


def leave_only_images(own: Path) -> None:
    leave_only_classes(own)
    save(own, "train/1.png", "plane/1.png")
    shutil.rmtree(own / "cat")
    shutil.rmtree(own / "dog")


def leave_no_images(own: Path) -> None:
    for path in own.rglob("*.*"):
        path.rename(path.with_suffix(".txt"))


def dangle(own: Path) -> None:
    (own / "train" / "cat" / "6.jpg").symlink_to("nothing.jpg")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (link_a_file, r"train/cat/6\.jpg: is a link to .*secret/a\.jpg, which is outside of .*/own; copy it there"),
        (link_a_folder, r"train/cat/more: is a link to .*secret, which is outside of"),
        (link_in_a_circle, r"train/cat/more: is a link to a folder that it is in itself; remove it"),
        (leave_a_class_empty, r"split 'train' has no images of eel; add some, or remove the folder"),
        (add_a_class_to_valid, r"'valid' has images of Dog, and split 'train' has none; its classes are cat, dog"),
        (put_an_image_beside_classes, r"1 image of split 'train' in no class folder, such as train/6\.png; move each"),
        (break_an_image, r"split 'train', image train/dog/a\.png cannot be decoded: .*; replace"),
        (
            rename_valid,
            r"no split 'valid', only held_out, train; set dataset\.split\.valid to held_out, or .*valid=null",
        ),
        (
            leave_only_classes,
            r"only cat, dog; set .* to cat or dog; if these are the classes, set .*train=\. .*valid=null",
        ),
        (
            leave_only_images,
            r"only plane, train; .*; if these are the classes, set dataset\.split\.train=\. ",
        ),
        (leave_no_images, r"cannot be read as a data set: .*; it needs parquet files .* or images as <split>/<class>/"),
        (dangle, r"train/cat/6\.jpg: cannot be read: No such file"),
    ],
)
def test_what_is_no_data_set_is_refused(own: Path, damage: Any, message: str):
    damage(own)
    with pytest.raises(DataError, match=message) as caught:
        ensure(config_of(own))
    assert str(own) in str(caught.value)


def test_a_split_is_called_as_its_folder_is(own: Path):
    add_a_class_to_valid(own)
    (own / "valid").rename(own / "val")
    with pytest.raises(DataError, match="split 'val' has images of Dog"):
        ensure(config_of(own))


def test_images_in_no_class(tmp_path: Path):
    own = save(tmp_path / "own", "train/1.png", "train/2.png", "plane/a/1.png")
    with pytest.raises(
        DataError, match=r"2 images of split 'train' in no .*; if 'train' is a class, and no split, set"
    ):
        ensure(config_of(own, NO_POOL))


def test_the_whole_folder_of_splits_is_refused(own: Path):
    with pytest.raises(DataError, match=r"its folders are splits and no classes: train, valid; set .*train=train"):
        ensure(config_of(own, {"train": ".", **NO_POOL}))
    with pytest.raises(DataError, match=r"\. is the whole of .*, and no split can be beside it; set .*valid=null"):
        ensure(config_of(own, {"train": "."}))


def test_files_are_listed_once_in_order(own: Path):
    (own / "train" / "link").symlink_to(own / "valid")
    paths = [path for path, _ in walk(own, leave_out=[own / "train" / "cat"])]
    assert paths == ["train/dog/a.png", "train/dog/b/3.png", "train/link", "valid/cat/5.bmp", "valid/dog/4.jpeg"]
