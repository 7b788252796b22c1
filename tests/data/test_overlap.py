"""Images that would be measured although they were trained on, and a test split that nobody would read."""

from __future__ import annotations

import io
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from PIL import Image

from relay.errors import ConfigError, DataError
from src.config.keys import TRAINING, content_key
from src.data import dataset as data
from src.data.found import with_found
from src.data.overlap import count_shared
from src.requests import grid_request
from tests.data.images import encode, make, rewrite, rows_of


def file_of(folder: Path, split: str) -> Path:
    (path,) = (folder / "data").glob(f"{split}-*.parquet")
    return path


def copy_train_to_valid(folder: Path) -> None:
    shutil.copy(file_of(folder, "train"), file_of(folder, "valid"))


def save_train_again_as_valid(folder: Path) -> None:
    """The same pixels in other files: another format, other bytes, another order."""
    rows = [
        {"image": {"bytes": encode(Image.open(io.BytesIO(row["image"]["bytes"])), "PNG"), "path": None}, **label}
        for row in reversed(rows_of(folder, "train"))
        for label in [{"label": row["label"]}]
    ]
    rewrite(folder, "valid", lambda table: pa.Table.from_pylist(rows, schema=table.schema))


def name_one_file_twice(folder: Path) -> None:
    card = folder / "README.md"
    card.write_text(card.read_text().replace("path: data/valid-*", "path: data/train-*"))


def lose_all_but_val(folder: Path) -> None:
    """`train` and `valid` are then the same file, under two words for validation."""
    (folder / "README.md").unlink()
    file_of(folder, "valid").unlink()
    file_of(folder, "train").rename(folder / "data" / "val.parquet")


@pytest.mark.parametrize(
    ("change", "names", "shared"),
    [
        (copy_train_to_valid, {}, "48 of the 48"),
        (save_train_again_as_valid, {}, "48 of the 48"),
        (name_one_file_twice, {}, "48 of the 48"),
        (lose_all_but_val, {"dataset.split.train": "val"}, "48 of the 48"),
    ],
)
def test_a_valid_split_that_was_trained_on_is_refused(
    folder: Path, tmp_path: Path, change: Callable[[Path], None], names: dict[str, Any], shared: str
):
    change(folder)
    with pytest.raises(DataError, match=rf"{shared}.*dataset\.split\.valid"):
        data.prepare(make(folder, tmp_path / "root", names))


@pytest.mark.parametrize("name", ["train", "valid", "both"])
def test_one_split_for_training_and_measuring_is_refused(folder: Path, tmp_path: Path, name: str):
    with pytest.raises(ConfigError, match=rf"dataset\.split\.valid: '{name}' is also dataset\.split\.train"):
        make(folder, tmp_path / "root", {"dataset.split": {"train": name, "valid": name}})


@pytest.mark.parametrize("source", ["synthetic", "own/images"])
def test_one_split_is_refused_whatever_the_source(tmp_path: Path, source: str):
    with pytest.raises(ConfigError, match=r"dataset\.split\.valid: 'train' is also"):
        make(source, tmp_path / "root", {"dataset.split.valid": "train"})


def test_the_split_that_is_trained_on_is_not_suggested(folder: Path, tmp_path: Path):
    (folder / "README.md").unlink()
    file_of(folder, "valid").unlink()
    with pytest.raises(
        DataError, match=r"no split 'valid', only train; .*valid=null .*or add its files as data/valid-"
    ):
        data.prepare(make(folder, tmp_path / "root"))


def share_images(folder: Path, count: int) -> None:
    """Put `count` of the training images into valid, in place of as many there."""
    taken = rows_of(folder, "train")[:count]

    def change(table: pa.Table) -> pa.Table:
        return pa.Table.from_pylist([*taken, *table.to_pylist()[count:]], schema=table.schema)

    rewrite(folder, "valid", change)


def test_a_share_that_the_user_allows_is_counted_and_accepted(folder: Path, tmp_path: Path):
    share_images(folder, 2)
    with pytest.raises(DataError, match=r"2 of the 40 images .* also in split 'train'.*dataset\.allowed_overlap=0\.05"):
        data.prepare(make(folder, tmp_path / "root"))
    config = make(
        folder, tmp_path / "root", {"dataset.allowed_overlap": 0.05, "dataset.split": {"val": 20, "test": 20}}
    )
    found = data.load(config)
    assert found.val.count_shared(found.train) + found.test.count_shared(found.train) == 2
    assert content_key(config, TRAINING) == content_key(
        make(folder, tmp_path / "root", {"dataset.split": {"val": 20, "test": 20}}), TRAINING
    )


def test_copies_inside_valid_are_refused(folder: Path, tmp_path: Path):
    rewrite(folder, "valid", lambda table: pa.concat_tables([table.slice(n, 1) for n in range(40) for _ in range(2)]))
    with pytest.raises(DataError, match=r"40 of the 80 .* are copies of others .*dataset\.allowed_overlap=0\.5"):
        data.prepare(make(folder, tmp_path / "root"))
    found = data.load(make(folder, tmp_path / "root", {"dataset.allowed_overlap": 0.5}))
    assert found.test.count_shared(found.val) > 0
    assert found.val.count_shared(found.train) == 0


def test_images_that_are_not_trained_on_do_not_count(folder: Path, tmp_path: Path):
    share_images(folder, 10)
    # Those of label 0: the first three of a class are trained on, or other classes.
    with pytest.raises(DataError, match=r"3 of the 40"):
        data.prepare(make(folder, tmp_path / "root", {"dataset.train_per_class": 3}))


def add_test_file(folder: Path) -> None:
    (folder / "README.md").unlink()
    shutil.copy(file_of(folder, "valid"), folder / "data" / "test-00000-of-00001.parquet")


def declare_test(folder: Path) -> None:
    card = folder / "README.md"
    shutil.copy(file_of(folder, "valid"), folder / "data" / "held.parquet")
    card.write_text(card.read_text().replace("---\n\nG", "  - split: test\n    path: data/held.parquet\n---\n\nG"))


def leave_test_undeclared(folder: Path) -> None:
    (folder / "test").mkdir()
    shutil.copy(file_of(folder, "valid"), folder / "test" / "0.parquet")


def call_it_evaluation(folder: Path) -> None:
    (folder / "README.md").unlink()
    shutil.copy(file_of(folder, "valid"), folder / "data" / "evaluation.parquet")


@pytest.mark.parametrize(
    ("change", "name"),
    [
        (add_test_file, "test"),
        (declare_test, "test"),
        (leave_test_undeclared, "test"),
        (call_it_evaluation, "evaluation"),
    ],
)
def test_a_test_split_is_not_ignored(folder: Path, tmp_path: Path, change: Callable[[Path], None], name: str):
    root = tmp_path / "root"
    change(folder)
    # Decoded first by an experiment that has no test images: the next one is refused all the same.
    data.prepare(make(folder, root, {"dataset.split.test": 0}))
    message = rf"split '{name}' beside 'train' and 'valid', but dataset\.split\.test=8 .*dataset\.split\.test={name} "
    with pytest.raises(DataError, match=message):
        data.prepare(make(folder, root))


@pytest.mark.parametrize("words", ["dev", "val", "validation"])
def test_three_splits_by_any_word(folder: Path, tmp_path: Path, words: str):
    add_test_file(folder)
    file_of(folder, "valid").rename(folder / "data" / f"{words}-00000-of-00001.parquet")
    with pytest.raises(DataError, match=r"the split 'test' beside"):
        data.prepare(make(folder, tmp_path / "root"))
    assert len(data.load(make(folder, tmp_path / "root", {"dataset.split.valid": "test"})).test) == 8


def test_the_test_split_is_measured_on_as_the_refusal_says(folder: Path, tmp_path: Path):
    add_test_file(folder)
    rows = rows_of(folder, "test")
    rewrite(folder, "test", lambda table: table.slice(0, 30))
    # They are the images of valid.
    with pytest.raises(
        DataError, match=r"30 of the 30 images of split 'test', which is test, are also in split 'valid'"
    ):
        data.prepare(make(folder, tmp_path / "root", {"dataset.split.test": "test"}))
    rewrite(folder, "valid", lambda table: table.slice(30, 10))
    found = data.load(make(folder, tmp_path / "root", {"dataset.split": {"val": 6, "test": "test"}}))
    assert (len(found.train), len(found.val), len(found.test)) == (48, 6, 30)
    assert found.test.labels[found.test.indices].tolist() == sorted(row["label"] for row in rows[:30])


def test_a_named_split_that_was_trained_on_is_refused(folder: Path, tmp_path: Path):
    copy_train_to_valid(folder)
    split = {"val": "valid", "test": 0}
    with pytest.raises(DataError, match=r"48 .* 'valid', which is val, are also in .*dataset\.split\.val; to accept"):
        data.prepare(make(folder, tmp_path / "root", {"dataset.split": split}))


def carve(folder: Path, root: Path, **dataset: Any) -> data.ImageData:
    """val and test out of the training images."""
    changes = {f"dataset.{key}": value for key, value in dataset.items()}
    return data.load(make(folder, root, {"dataset.split": {"valid": None, "val": 9, "test": 0.25}, **changes}))


def test_val_and_test_out_of_the_training_images(folder: Path, tmp_path: Path):
    found = carve(folder, tmp_path / "root")
    assert (len(found.train), len(found.val), len(found.test)) == (27, 9, 12)
    assert list(found.facts) == ["train"]
    parts = [each.digests[each.indices] for each in (found.train, found.val, found.test)]
    assert not any(count_shared(*pair) for pair in ((parts[0], parts[1]), (parts[0], parts[2]), (parts[1], parts[2])))


def test_copies_inside_what_is_divided_are_refused(folder: Path, tmp_path: Path):
    rewrite(folder, "train", lambda table: pa.concat_tables([table, table.slice(0, 5)]))
    message = (
        r"5 of the 53 images of split 'train', from which val and test are drawn, are copies .* train, val and test"
    )
    with pytest.raises(DataError, match=rf"{message} .*dataset\.split\.val; .*dataset\.allowed_overlap=0\.095"):
        carve(folder, tmp_path / "root")
    assert len(carve(folder, tmp_path / "root", allowed_overlap=0.095).test) == 13


def test_copies_inside_valid_do_no_harm_without_a_test_split(folder: Path, tmp_path: Path):
    rewrite(folder, "valid", lambda table: pa.concat_tables([table, table.slice(0, 5)]))
    assert len(data.load(make(folder, tmp_path / "root", {"dataset.split.test": 0})).val) == 24


def test_carved_parts_beside_a_test_split(folder: Path, tmp_path: Path):
    add_test_file(folder)
    file_of(folder, "valid").unlink()
    with pytest.raises(
        DataError, match=r"'test' beside 'train', but dataset\.split\.test=8 draws .* from 'train'\. Set"
    ):
        data.load(make(folder, tmp_path / "root", {"dataset.split.valid": None}))
    split = {"valid": None, "val": 8, "test": "test"}
    found = data.load(make(folder, tmp_path / "root", {"dataset.split": split}))
    assert (len(found.train), len(found.val), len(found.test)) == (40, 8, 40)
    # Of the images that val is drawn from, none may be in test.
    shared = pq.read_table(file_of(folder, "train")).slice(0, 4)
    rewrite(folder, "test", lambda table: pa.concat_tables([table, shared]))
    with pytest.raises(
        DataError, match=r"4 of the 44 images of split 'test', which is test, are also in split 'train'"
    ):
        data.prepare(make(folder, tmp_path / "root", {"dataset.split": split}))


def test_the_mean_is_that_of_exactly_the_images_that_are_trained_on(folder: Path, tmp_path: Path):
    found = {}
    for seed in (1, 2):
        split = {"valid": None, "val": 9, "test": 4, "seed": seed}
        changes = {"dataset.split": split, "dataset.train_per_class": 7, "preprocess.normalize": "auto"}
        config = with_found(make(folder, tmp_path / "root", changes))
        train = data.load(config).train
        pixels = train.images[train.indices].astype(np.float64) / 255
        assert len(train) == 28
        assert config.preprocess.statistics.mean == pytest.approx(pixels.mean(axis=(0, 2, 3)), abs=1e-6)
        assert config.preprocess.statistics.std == pytest.approx(pixels.std(axis=(0, 2, 3)), abs=1e-6)
        found[seed] = config.preprocess.statistics
    assert found[1] != found[2]


def test_each_seed_of_a_grid_has_its_own_mean(folder: Path, tmp_path: Path):
    changes = {
        "dataset.split": {"valid": None, "val": 8, "test": 4},
        "preprocess.normalize": "auto",
        "hparams": {"dataset.split.seed": [1, 2], "lr": [0.1, 0.2]},
    }
    request = grid_request(make(folder, tmp_path / "root", changes))
    means: dict[int, list[float]] = {}
    for cell in request.cells:
        content = yaml.safe_load(cell.config)
        mean = content["preprocess"]["normalize"]["mean"]
        assert means.setdefault(content["dataset"]["split"]["seed"], mean) == mean
    assert means[1] != means[2]


def test_images_in_folders_are_checked_too(folder: Path, tmp_path: Path):
    """train/, valid/ and test/ with a folder for each class."""
    images = tmp_path / "pictures"
    for split, source in (("train", "train"), ("validation", "valid"), ("test", "valid")):
        for number, row in enumerate(rows_of(folder, source)):
            place = images / split / f"class_{row['label']}"
            place.mkdir(parents=True, exist_ok=True)
            (place / f"{number}.jpg").write_bytes(row["image"]["bytes"])
    names = {"dataset.split.valid": "validation"}
    with pytest.raises(DataError, match=r"the split 'test' beside 'train' and 'validation'"):
        data.prepare(make(images, tmp_path / "root", names))
    shutil.rmtree(images / "test")
    assert len(data.load(make(images, tmp_path / "root", names)).val) == 24
    shutil.rmtree(images / "validation")
    shutil.copytree(images / "train", images / "validation")
    with pytest.raises(DataError, match=r"48 of the 48 images"):
        data.prepare(make(images, tmp_path / "root", names))
