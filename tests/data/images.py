"""Small data sets in folders, and changes to their parquet files."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from src.config.loading import make_config
from src.config.schema import Config

CLASSES = 4


def make(
    name: Path | str, root: Path, overrides: dict[str, Any] | None = None, size: tuple[int, int] = (16, 16)
) -> Config:
    """A config for CLASSES classes of images from `name`; `overrides` by key path."""
    content = {
        "dataset": {"name": str(name), "root": str(root), "num_workers": 2, "split": {"val": 24, "test": 8}},
        "preprocess": {"resize": list(size)},
        "model": {"num_classes": CLASSES, "input_shape": [3, *size]},
    }
    return make_config(content, "test", overrides)


def rows_of(folder: Path, split: str) -> list[dict[str, Any]]:
    return pq.read_table(next((folder / "data").glob(f"{split}-*.parquet"))).to_pylist()


def rewrite(folder: Path, split: str, change: Callable[[pa.Table], pa.Table]) -> None:
    path = next((folder / "data").glob(f"{split}-*.parquet"))
    pq.write_table(change(pq.read_table(path)), path)


def replace_image(folder: Path, split: str, index: int, content: bytes | None) -> None:
    def change(table: pa.Table) -> pa.Table:
        images = table["image"].to_pylist()
        images[index] = {"bytes": content, "path": None}
        return table.set_column(0, table.schema.field("image"), pa.array(images, type=table.schema.field("image").type))

    rewrite(folder, split, change)


def encode(image: Image.Image, kind: str = "JPEG") -> bytes:
    file = io.BytesIO()
    image.save(file, kind)
    return file.getvalue()
