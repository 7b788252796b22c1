"""The columns of a table, and the classes that its labels mean."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from relay.errors import DataError
from src.config.schema import Config
from src.data.cache import ensure, read_arrays, read_meta
from tests.data.images import encode, make

SPLITS = ("train", "valid")


def pictures(count: int, first: int) -> list[bytes]:
    return [encode(Image.new("RGB", (9, 7), (first + n, 100, 255 - n)), "PNG") for n in range(count)]


def write(folder: Path, columns: dict[str, dict[str, Any]]) -> Path:
    """One parquet file for each split, of plain columns."""
    (folder / "data").mkdir(parents=True)
    for split, content in columns.items():
        pq.write_table(pa.table(content), folder / "data" / f"{split}-00000-of-00001.parquet")
    return folder


def table(folder: Path, train: Any, valid: Any, image: str = "image", label: str = "label") -> Path:
    both = zip(SPLITS, (train, valid), strict=True)
    return write(
        folder,
        {split: {image: pictures(len(labels), 50 * (split == "valid")), label: labels} for split, labels in both},
    )


def config_of(folder: Path, overrides: dict[str, Any] | None = None) -> Config:
    return make(folder, folder.parent / "root", overrides)


def labels_of(config: Config) -> tuple[list[str], dict[str, list[int]]]:
    place = ensure(config)
    arrays = read_arrays(place)
    return read_meta(place)["class_names"], {name: each.labels.tolist() for name, each in arrays.items()}


@pytest.mark.parametrize(
    ("train", "valid", "names", "expected"),
    [
        ([10, 1, 7, 1, -3], [7, 10], ["-3", "1", "7", "10"], [3, 1, 2, 1, 0]),
        (["dog", "cat", "éé", "cat"], ["cat", "dog"], ["cat", "dog", "éé"], [1, 0, 2, 0]),
        ([True, False, True], [False], ["False", "True"], [1, 0, 1]),
        (np.array([2, 200], np.uint8), np.array([200], np.uint8), ["2", "200"], [0, 1]),
        (pa.array(["b", "a"], pa.large_string()), pa.array(["a"], pa.large_string()), ["a", "b"], [1, 0]),
        (pa.array(["b", "a"]).dictionary_encode(), pa.array(["a"]).dictionary_encode(), ["a", "b"], [1, 0]),
        ([2**62, 5], [5], ["5", str(2**62)], [1, 0]),
    ],
    ids=["integers", "strings", "bools", "bytes", "large strings", "categories", "large"],
)
def test_labels_without_names_become_classes(tmp_path: Path, train: Any, valid: Any, names: Any, expected: Any):
    found, labels = labels_of(config_of(table(tmp_path / "own", train, valid)))
    assert found == names
    assert labels["train"] == expected
    values = valid.tolist() if hasattr(valid, "tolist") else valid
    assert [found[label] for label in labels["valid"]] == [str(value) for value in values]


def test_a_table_as_the_hub_has_cifar(tmp_path: Path):
    """Its columns are img, fine_label and coarse_label, written by datasets itself."""
    features = datasets.Features(
        {
            "img": datasets.Image(),
            "fine_label": datasets.ClassLabel(names=["apple", "bear", "crab"]),
            "coarse_label": datasets.ClassLabel(names=["fruit", "animal"]),
        }
    )
    (tmp_path / "cifar").mkdir()
    pixels = {}
    for number, split in enumerate(("train", "test")):
        rng = np.random.default_rng(number)
        pixels[split] = rng.integers(0, 256, (6, 8, 8, 3), dtype=np.uint8)
        rows = {
            "img": [Image.fromarray(each) for each in pixels[split]],
            "fine_label": [2, 0, 1, 1, 0, 2],
            "coarse_label": [1, 0, 1, 1, 0, 1],
        }
        datasets.Dataset.from_dict(rows, features=features).to_parquet(tmp_path / "cifar" / f"{split}.parquet")
    change = {"dataset.columns": {"image": "img", "label": "fine_label"}, "dataset.split.valid": "test"}
    config = make(tmp_path / "cifar", tmp_path / "root", change, (8, 8))
    names, labels = labels_of(config)
    assert (names, labels["test"]) == (["apple", "bear", "crab"], [2, 0, 1, 1, 0, 2])
    arrays = read_arrays(ensure(config))
    assert all(np.array_equal(arrays[split].images.transpose(0, 2, 3, 1), pixels[split]) for split in pixels)
    coarse, _ = labels_of(
        make(tmp_path / "cifar", tmp_path / "root", {**change, "dataset.columns.label": "coarse_label"}, (8, 8))
    )
    assert coarse == ["fruit", "animal"], "another column is another cache"


@pytest.mark.parametrize(
    "kind", [pa.binary(), pa.large_binary(), pa.struct({"bytes": pa.binary(), "path": pa.string()})]
)
def test_images_without_metadata(tmp_path: Path, kind: pa.DataType):
    def column(first: int) -> pa.Array:
        images: list[Any] = pictures(2, first)
        return pa.array(
            [{"bytes": each, "path": None} for each in images] if pa.types.is_struct(kind) else images, kind
        )

    own = {split: {"image": column(50 * n), "label": ["a", "b"]} for n, split in enumerate(SPLITS)}
    assert labels_of(config_of(write(tmp_path / "own", own)))[0] == ["a", "b"]
    arrays = read_arrays(ensure(config_of(tmp_path / "own")))
    assert arrays["valid"].images[1, :, 3, 3].tolist() == [51, 100, 254]


def test_class_names_replace_those_of_the_data(tmp_path: Path):
    config = config_of(table(tmp_path / "own", [3, 5, 4], [5]), {"dataset.class_names": ["setosa", "virginica", "x"]})
    assert labels_of(config)[0] == ["setosa", "virginica", "x"]


@pytest.mark.parametrize(
    ("train", "valid", "change", "message"),
    [
        (
            [1, 2],
            [1, 3],
            {},
            r"split 'valid', image 1 has the label 3, which no image of split 'train' has; .*are 1, 2",
        ),
        (["a", "b"], ["b", "A"], {}, r"image 1 has the label 'A', which no image of split 'train' has"),
        ([1, None, 2], [1], {}, r"split 'train', image 1 has no label; give it one, or remove the row"),
        (["a", "b"], ["a", None], {}, r"split 'valid', image 1 has no label"),
        ([1.0, 2.0], [1.0], {}, r"column 'label' is of type float64; it must be a ClassLabel, integers, strings or"),
        ([[1], [2]], [[1]], {}, r"column 'label' is of type List; it must be a ClassLabel"),
        ([4, 4], [4], {}, r"split 'train' has too few classes: 1 \(4\); at least two are needed"),
        ([1, 2], [1], {"dataset.class_names": ["a", "b", "c"]}, r"class_names: 3 names, but .* has 2 classes: 1, 2;"),
    ],
)
def test_labels_that_are_no_classes_are_refused(
    tmp_path: Path, train: Any, valid: Any, change: dict[str, Any], message: str
):
    with pytest.raises(DataError, match=message):
        ensure(config_of(table(tmp_path / "own", train, valid), change))
    assert [path.suffix for path in (tmp_path / "root" / "decoded").iterdir()] == [".lock"]


@pytest.mark.parametrize(
    ("image", "label", "message"),
    [
        ("img", "label", r"there is no column 'image' \(set dataset\.columns\.image=img\); its columns: img, label"),
        ("image", "fine_label", r"there is no column 'label' \(set dataset\.columns\.label=fine_label\)"),
        (
            "img",
            "y",
            r"no column 'image' \(set .*image=img\) and no column 'label' \(set .*label=y\); its columns",
        ),
    ],
)
def test_columns_of_other_names_are_suggested(tmp_path: Path, image: str, label: str, message: str):
    with pytest.raises(DataError, match=message):
        ensure(config_of(table(tmp_path / "own", [1, 2], [2], image, label)))


def test_the_nearest_of_several_columns_is_suggested(tmp_path: Path):
    content = {"img": pictures(2, 0), "id": [1, 2], "fine_label": [1, 2], "coarse_label": [1, 2], "depth": [0.5, 0.5]}
    own = write(tmp_path / "own", dict.fromkeys(SPLITS, content))
    with pytest.raises(DataError, match=r"label=fine_label\); its columns: img, id, fine_label, coarse_label, depth"):
        ensure(config_of(own))


@pytest.mark.parametrize(("image", "kind"), [("a.jpg", "string"), ({"path": "a.jpg", "n": 1}, "struct of path and n")])
def test_a_column_of_paths_without_bytes_is_refused(tmp_path: Path, image: Any, kind: str):
    own = write(tmp_path / "own", {each: {"image": [image, image], "label": [1, 2]} for each in SPLITS})
    with pytest.raises(
        DataError, match=rf"'image' is of type {kind}; .*, or store the bytes of the files that it names"
    ):
        ensure(config_of(own))


def test_a_label_beyond_the_classes_is_refused(tmp_path: Path):
    own = tmp_path / "own"
    (own / "data").mkdir(parents=True)
    features = datasets.Features(
        {"image": datasets.Value("binary"), "label": datasets.ClassLabel(names=["cat", "dog"])}
    )
    for split, labels in (("train", [0, 1]), ("valid", [1, None])):
        held = datasets.Dataset.from_dict({"image": pictures(2, 0), "label": labels}, features)
        held.to_parquet(own / "data" / f"{split}.parquet")
    message = r"split 'valid', image 1 has no label; its 2 classes are numbered 0 to 1: cat, dog; correct it, or remove"
    with pytest.raises(DataError, match=message):
        ensure(config_of(own))


def test_an_image_column_of_another_type_is_refused(tmp_path: Path):
    own = write(tmp_path / "own", {each: {"image": [[1, 2], [3, 4]], "label": [1, 2]} for each in SPLITS})
    with pytest.raises(DataError, match=r"column 'image' is of type List; it must be encoded images: the type Image"):
        ensure(config_of(own))


@pytest.mark.parametrize(
    ("split", "names"),
    [
        ({"train": "train", "valid": None, "val": 2, "test": 0}, ["train"]),
        ({"train": "train", "valid": "dev", "val": 2, "test": "exam"}, ["train", "dev", "exam"]),
        ({"train": "train", "val": "dev", "test": "exam"}, ["train", "dev", "exam"]),
        ({"train": "a", "valid": "b", "val": 2, "test": "c"}, ["a", "b", "c"]),
    ],
)
def test_any_number_of_splits(tmp_path: Path, split: dict[str, Any], names: list[str]):
    own = {name: {"image": pictures(n + 2, 20 * n), "label": list(range(2)) + [0] * n} for n, name in enumerate(names)}
    config = config_of(write(tmp_path / "own", own), {"dataset.split": split})
    place = ensure(config)
    arrays, meta = read_arrays(place), read_meta(place)
    assert list(arrays) == list(meta["facts"]) == names
    assert [len(arrays[name].images) for name in names] == list(range(2, 2 + len(names)))
    assert [arrays[name].images[0, 0, 0, 0] for name in names] == [20 * n for n in range(len(names))]
