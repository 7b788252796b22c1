"""A small data set of 4 classes in a folder: 48 training images, 40 of the split valid."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from src.data import synthetic
from tests.data.images import CLASSES


@pytest.fixture(scope="session")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("original") / "images"
    synthetic.write(folder, classes=CLASSES, train_per_class=12, valid_per_class=10, seed=3)
    return folder


@pytest.fixture
def folder(original: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(original, tmp_path / "images"))
