"""Images are upright, as the program that made them shows them."""

from __future__ import annotations

import io
from pathlib import Path

import datasets
import numpy as np
import pytest
from PIL import Image

from src.data import dataset as data
from src.data import decoding
from src.data.decoding import decode
from tests.data.images import make, replace_image

_ORIENTATION = 0x0112


def turned(image: Image.Image, orientation: int, kind: str = "JPEG") -> bytes:
    """The image file, whose EXIF data has this orientation."""
    exif = Image.Exif()
    exif[_ORIENTATION] = orientation
    file = io.BytesIO()
    image.save(file, kind, exif=exif, **({"quality": 95} if kind == "JPEG" else {}))
    return file.getvalue()


def corner(mode: str = "RGB") -> Image.Image:
    """20 pixels wide and 12 high, with one bright corner and one grey side."""
    pixels = np.zeros((12, 20), np.uint8)
    pixels[:4, :6] = 250
    pixels[:, 16:] = 120
    return Image.fromarray(pixels).convert(mode)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_an_image_is_turned_as_datasets_turns_it(kind: str, orientation: int):
    encoded = turned(corner(), orientation, kind)
    expected = datasets.Image().decode_example({"bytes": encoded, "path": None}).convert("RGB")
    found = decode(encoded, (expected.height, expected.width))
    assert np.array_equal(found.pixels.transpose(1, 2, 0), np.asarray(expected))
    assert found.change == ("turned upright" if orientation > 1 else "")


@pytest.mark.parametrize("orientation", [0, 9, 200])
def test_an_orientation_that_means_nothing_turns_nothing(orientation: int):
    found = decode(turned(corner(), orientation), (12, 20))
    assert np.array_equal(found.pixels, decode(turned(corner(), 1), (12, 20)).pixels)
    assert found.change == ""


def test_sixteen_bits_and_transparency_are_turned_too():
    grey = Image.fromarray(np.asarray(corner("L")).astype(np.uint16) << 8)
    found = decode(turned(grey, 6, "PNG"), (20, 12))
    assert np.array_equal(found.pixels[0], np.rot90(np.asarray(corner("L")), -1))
    assert found.change == "16 bits to 8, turned upright"
    clear = corner("RGBA")
    clear.putalpha(Image.fromarray(np.asarray(corner("L"))))
    found = decode(turned(clear, 3, "PNG"), (12, 20))
    assert found.change == "transparency over black, turned upright"
    assert found.pixels[0, -1, -1] > 200
    assert found.pixels[0, 0, 0] < 100


def test_turned_images_are_counted_and_old_pixels_are_not_used(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    for index, orientation in enumerate((1, 3, 6)):
        replace_image(folder, "train", index, turned(corner(), orientation))
    config = make(folder, tmp_path / "root")
    with monkeypatch.context() as before:
        before.setattr(decoding, "VERSION", decoding.VERSION - 1)
        before.setattr(decoding, "_TURNS", {})
        old = data.load(config)
    assert old.facts["train"]["changes"] == {}
    found = data.load(config)
    assert found.facts["train"]["changes"] == {"turned upright": 2}
    assert found.folder != old.folder
    assert [bool((found.train.images[n] != old.train.images[n]).any()) for n in range(4)] == [False, True, True, False]
