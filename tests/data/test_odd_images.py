"""Odd and damaged images, written by libvips: their pixels are those that libvips reads, or the refusal says why not.

docs/own-data.md has the same table.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import pyvips

from relay.errors import DataError
from src.config.schema import Config, Preprocess
from src.data import dataset as data
from src.data.decoding import decode
from src.data.found import with_found
from tests.data.images import make, replace_image

Pixels = npt.NDArray[Any]
HEIGHT, WIDTH = 18, 26


def pixels(channels: int, kind: type = np.uint8) -> Pixels:
    """Smooth, so that two decoders of JPEG agree, and of all values: (H, W, channels)."""
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH] / np.array([HEIGHT, WIDTH])[:, None, None]
    waves = [np.sin(3 * x + channel) * np.cos(4 * y - channel) for channel in range(channels)]
    top = {np.uint8: 255, np.uint16: 65535, np.float32: 1}[kind]
    return ((np.stack(waves, axis=2) * 0.5 + 0.5) * top).astype(kind)


def vips(array: Pixels, interpretation: str) -> Any:
    return pyvips.Image.new_from_array(array).copy(interpretation=interpretation)


def written(array: Pixels, interpretation: str, suffix: str, **options: Any) -> bytes:
    content: bytes = vips(array, interpretation).write_to_buffer(suffix, **options)
    return content


def read(content: bytes) -> Pixels:
    """As libvips decodes it: (H, W, C)."""
    return np.atleast_3d(pyvips.Image.new_from_buffer(content, "").numpy())


def animated(suffix: str, **options: Any) -> bytes:
    """The first frame is `pixels(3)`."""
    frames = pyvips.Image.arrayjoin([vips(pixels(3), "srgb"), vips(255 - pixels(3), "srgb")], across=1).copy()
    frames.set_type(pyvips.GValue.gint_type, "page-height", HEIGHT)
    content: bytes = frames.write_to_buffer(suffix, **options)
    return content


def turned(orientation: int) -> bytes:
    image = vips(pixels(3), "srgb").copy()
    image.set_type(pyvips.GValue.gint_type, "orientation", orientation)
    content: bytes = image.write_to_buffer(".jpg", Q=100, subsample_mode="off")
    return content


def over_black(rgba: Pixels) -> Pixels:
    return rgba[..., :-1] * (rgba[..., -1:] / 255)


def from_cmyk(cmyk: Pixels) -> Pixels:
    return (255 - cmyk[..., :3].astype(float)) * (255 - cmyk[..., 3:].astype(float)) / 255


def same(read: Pixels) -> Pixels:
    return read


def upper_byte(read: Pixels) -> Pixels:
    return read >> 8


# The file, what libvips's pixels are as RGB or grey, by how much they may differ, and the change that is counted.
IMAGES: dict[str, tuple[Callable[[], bytes], Callable[[Pixels], Pixels], int, str]] = {
    "PNG": (lambda: written(pixels(3), "srgb", ".png"), same, 0, ""),
    "grey": (lambda: written(pixels(1), "b-w", ".png"), same, 0, ""),
    "JPEG": (lambda: written(pixels(3), "srgb", ".jpg", Q=95), same, 2, ""),
    "CMYK JPEG": (lambda: written(pixels(4), "cmyk", ".jpg", Q=95), from_cmyk, 3, "CMYK to RGB"),
    "CMYK TIFF": (lambda: written(pixels(4), "cmyk", ".tif"), from_cmyk, 1, "CMYK to RGB"),
    "palette": (lambda: written(pixels(3), "srgb", ".png", palette=True, Q=100), same, 0, ""),
    "clear palette": (
        lambda: written(pixels(4), "srgb", ".png", palette=True),
        over_black,
        1,
        "transparency over black",
    ),
    "16 bit grey": (lambda: written(pixels(1, np.uint16), "grey16", ".png"), upper_byte, 0, "16 bits to 8"),
    "16 bit grey TIFF": (lambda: written(pixels(1, np.uint16), "grey16", ".tif"), upper_byte, 0, "16 bits to 8"),
    "16 bit RGB": (lambda: written(pixels(3, np.uint16), "rgb16", ".png"), upper_byte, 0, "16 bits to 8"),
    "16 bit RGB TIFF": (lambda: written(pixels(3, np.uint16), "rgb16", ".tif"), upper_byte, 0, "16 bits to 8"),
    "RGBA": (lambda: written(pixels(4), "srgb", ".png"), over_black, 1, "transparency over black"),
    "LA": (lambda: written(pixels(2), "b-w", ".png"), over_black, 1, "transparency over black"),
    "1 bit": (lambda: written((pixels(1) > 99) * np.uint8(255), "b-w", ".png", bitdepth=1), same, 0, ""),
    "animated GIF": (lambda: animated(".gif", effort=1), lambda frame: frame[..., :3], 0, "first of several frames"),
    "animated WebP": (lambda: animated(".webp", lossless=True), same, 0, "first of several frames"),
    "TIFF of two pages": (lambda: animated(".tif"), same, 0, "first of several frames"),
    "turned": (lambda: turned(6), lambda stored: np.rot90(stored, -1), 2, "turned upright"),
    "1 pixel high": (lambda: written(pixels(3)[:1], "srgb", ".png"), same, 0, ""),
    "1 pixel wide": (lambda: written(pixels(3)[:, :1], "srgb", ".png"), same, 0, ""),
    "1 pixel": (lambda: written(pixels(3)[:1, :1], "srgb", ".png"), same, 0, ""),
}


@pytest.mark.parametrize("name", IMAGES)
def test_pixels_are_those_that_libvips_reads(name: str):
    file, converted, tolerance, change = IMAGES[name]
    content = file()
    expected = converted(read(content)).astype(float)
    found = decode(content, expected.shape[:2])
    assert found.change == change
    assert np.abs(found.pixels.transpose(1, 2, 0) - expected).max() <= tolerance
    assert expected.size < 9 or np.ptp(expected) > 150, "the file has an image in it"


@pytest.mark.parametrize("name", IMAGES)
def test_as_grey(name: str):
    file, converted, tolerance, change = IMAGES[name]
    content = file()
    expected = converted(read(content)).astype(float)
    if expected.shape[2] == 3:
        expected = expected @ [[0.299], [0.587], [0.114]]
    found = decode(content, expected.shape[:2], "L")
    assert found.pixels.shape == (1, *expected.shape[:2])
    assert found.change == change
    assert np.abs(found.pixels[0] - expected[..., 0]).max() <= tolerance + 1


@pytest.mark.parametrize("name", IMAGES)
def test_with_transparency(name: str):
    file, converted, tolerance, change = IMAGES[name]
    content = file()
    stored = read(content)
    found = decode(content, converted(stored).shape[:2], "RGBA")
    assert found.pixels.shape[0] == 4
    if converted is over_black:
        assert found.change == ""
        shown = found.pixels[3] > 0
        assert np.array_equal(found.pixels[3], stored[..., -1])
        assert (found.pixels[:3].transpose(1, 2, 0) == stored[..., :-1])[shown].all()
    else:
        assert found.change == change
        assert (found.pixels[3] == 255).all()
        assert np.abs(found.pixels[:3].transpose(1, 2, 0) - converted(stored).astype(float)).max() <= tolerance


def truncated(name: str) -> bytes:
    content = IMAGES[name][0]()
    return content[: len(content) // 2]


def radiance() -> bytes:
    return b"#?RADIANCE\nFORMAT=32-bit_rle_rgbe\n\n-Y 1 +X 1\n" + bytes([128, 128, 128, 129])


DAMAGED: dict[str, tuple[Callable[[], bytes], str]] = {
    "truncated JPEG": (lambda: truncated("JPEG"), r"it is damaged \(.*[Tt]runcated"),
    "truncated PNG": (lambda: truncated("PNG"), r"it is damaged \("),
    "truncated GIF": (lambda: truncated("animated GIF"), r"it is damaged \(.*truncated"),
    # libvips writes the directory of a TIFF to its end.
    "truncated TIFF": (lambda: truncated("16 bit RGB TIFF"), "it begins with .* no image that Pillow reads"),
    "no bytes": (lambda: b"", "it has no bytes"),
    "text": (
        lambda: b"<html>not found</html>",
        r"it begins with b'<html>not': no image that Pillow reads; save it as PNG",
    ),
    "HDR": (radiance, r"it begins with b'#\?RADIANC': no image that Pillow reads; save it as PNG or JPEG"),
    "float TIFF": (
        lambda: written(pixels(1, np.float32), "b-w", ".tif"),
        "its mode is 'F', .* save it with 8 or 16 bits",
    ),
    "float RGB TIFF": (lambda: written(pixels(3, np.float32), "scrgb", ".tif"), "no image that Pillow reads; save it"),
    "huge": (
        lambda: pyvips.Image.black(14_000, 13_000).write_to_buffer(".png", bitdepth=1),
        "it has 13000 x 14000 pixels, more than the 178,956,970 that are read; make it smaller",
    ),
}


# Pillow warns, too, when it finds no directory in a TIFF.
@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
@pytest.mark.parametrize("name", DAMAGED)
def test_what_cannot_be_read_is_refused_with_its_number_and_the_reason(folder: Path, tmp_path: Path, name: str):
    file, reason = DAMAGED[name]
    replace_image(folder, "train", 5, file())
    with pytest.raises(DataError, match=rf"split 'train', image 5 cannot be decoded: .*({reason}).*; replace the file"):
        data.prepare(make(folder, tmp_path / "root"))
    assert not list((tmp_path / "root" / "decoded").glob("images*"))


def test_a_large_image_is_read_without_a_warning():
    content = pyvips.Image.black(10_000, 9_500).write_to_buffer(".png", bitdepth=1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert decode(content, (4, 4)).size == (9_500, 10_000)


@pytest.mark.parametrize("mode", ["L", "RGBA"])
def test_all_of_them_in_one_data_set_are_counted(folder: Path, tmp_path: Path, mode: str):
    names = list(IMAGES)
    for index, name in enumerate(names):
        replace_image(folder, "train", index, IMAGES[name][0]())
    changes = {"preprocess.mode": mode, "preprocess.normalize": "auto", "model.input_shape": "auto"}
    config: Config = with_found(make(folder, tmp_path / "root", changes))
    found = data.load(config)
    assert data.images_of(config) != data.images_of(
        config.model_copy(update={"preprocess": Preprocess(resize=(16, 16))})
    )
    assert found.train.images.shape == (48, len(mode), 16, 16)
    expected = [IMAGES[name][3] for name in names if IMAGES[name][3]]
    if mode == "RGBA":
        expected = [each for each in expected if each != "transparency over black"]
    assert found.facts["train"]["changes"] == {each: expected.count(each) for each in set(expected)}
    for index, name in enumerate(names):
        assert np.array_equal(found.train.images[index], decode(IMAGES[name][0](), (16, 16), mode).pixels)


def test_a_jpeg_with_another_suffix_is_read(tmp_path: Path):
    """By its content: a folder of pictures has files with wrong names."""
    from PIL import Image

    path = tmp_path / "photo.png"
    path.write_bytes(IMAGES["JPEG"][0]())
    assert Image.open(io.BytesIO(path.read_bytes())).format == "JPEG"
    assert decode(path.read_bytes(), (4, 4)).mode == "RGB"
