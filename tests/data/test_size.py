"""How much room the decoded images take, before they are decoded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from relay.errors import DataError
from src.config.schema import Config
from src.data import build
from src.data.cache import ensure, size_of, to_decode
from src.data.dataset import prepare
from tests.data.images import make
from tests.data.test_class_folders import TRAIN, VALID, save

SYNTHETIC = {"dataset.synthetic_train_per_class": 9, "dataset.synthetic_valid_per_class": 11}


def arrays_in(place: Path) -> int:
    """The bytes of all arrays without the header of each file, which NumPy fills up to 128 bytes."""
    return sum(path.stat().st_size - 128 for path in place.glob("*.npy"))


@pytest.mark.parametrize("kind", ["table", "no card", "class folders", "synthetic"])
def test_the_size_is_that_of_the_files(folder: Path, tmp_path: Path, kind: str):
    config = {
        "table": lambda: make(folder, tmp_path / "root", size=(20, 30)),
        "no card": lambda: make(folder, tmp_path / "root"),
        "class folders": lambda: make(save(tmp_path / "own", *TRAIN, *VALID), tmp_path / "root"),
        "synthetic": lambda: make("synthetic", tmp_path / "root", SYNTHETIC),
    }[kind]()
    if kind == "no card":
        (folder / "README.md").unlink()
    expected = size_of(config)
    assert to_decode(config).endswith(f"less than 0.01 GB will be decoded into {tmp_path / 'root' / 'decoded'}")
    assert not (tmp_path / "root").exists()
    assert arrays_in(ensure(config)) == expected
    assert to_decode(config) == ""


def test_a_part_of_the_splits_is_counted_alone(tmp_path: Path):
    change: dict[str, Any] = {**SYNTHETIC, "dataset.split": {"valid": None, "val": 4, "test": 0}}
    config = make("synthetic", tmp_path, change)
    assert size_of(config) == build.decoded_size(config, 36)


@pytest.mark.parametrize("name", ["own/images", "torchvision/CIFAR10"])
def test_what_is_not_here_or_needs_torch_has_no_size_yet(tmp_path: Path, name: str):
    config = make(name, tmp_path)
    assert size_of(config) is None
    assert to_decode(config) == f"{name}: its images will be decoded into {tmp_path / 'decoded'}"


def test_a_split_that_is_not_there_is_said_without_decoding(folder: Path, tmp_path: Path):
    with pytest.raises(DataError, match="there is no split 'valid', only train"):
        to_decode(make(save(tmp_path / "own", *TRAIN), tmp_path))
    (folder / "data" / "valid-00000-of-00001.parquet").unlink()
    (folder / "README.md").unlink()
    with pytest.raises(DataError, match="there is no split 'valid', only train"):
        to_decode(make(folder, tmp_path))


@pytest.mark.parametrize(
    ("size", "text"), [(12_345_678_901, "12.35 GB"), (10_000_000, "0.01 GB"), (9, "less than 0.01")]
)
def test_sizes_are_in_gigabytes(size: int, text: str):
    assert build.gigabytes(size).startswith(text)


def test_a_disk_that_is_too_small_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    config = make("synthetic", tmp_path, SYNTHETIC, (400, 500))
    size = size_of(config) or 0

    def leave(free: int) -> None:
        monkeypatch.setattr(build.shutil, "disk_usage", lambda path: type("Usage", (), {"free": free}))

    leave(size - 1)
    with pytest.raises(
        DataError, match=r"images of synthetic take 0\.05 GB, and .*decoded has 0\.05 GB free; set data"
    ):
        ensure(config)
    assert [path.suffix for path in (tmp_path / "decoded").iterdir()] == [".lock"]
    leave(size)
    ensure(config)


def test_the_log_says_it_first(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    config: Config = make(folder, tmp_path, size=(200, 300))
    prepare(config)
    first, *others = capsys.readouterr().err.splitlines()
    assert f"decoding 88 images of {folder} into {tmp_path / 'decoded'}: 0.02 GB, " in first
    assert first.endswith(" pixels each")
    assert others
