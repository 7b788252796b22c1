"""From the rows of a split, as stored, to 8-bit pixels of one size and mode.

Importing this module imports neither datasets nor PIL.
"""

from __future__ import annotations

import functools
import io
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from relay.errors import DataError
from relay.text import brief

if TYPE_CHECKING:
    from PIL.Image import Image as PilImage


# Increase it if the same file gives other pixels; it is part of the cache key.
VERSION = 2
# How a picture with this EXIF orientation is turned upright (EXIF 2.32, tag 0x0112); 1 is upright.
_ORIENTATION = 0x0112
_TURNS = {
    2: "FLIP_LEFT_RIGHT",
    3: "ROTATE_180",
    4: "FLIP_TOP_BOTTOM",
    5: "TRANSPOSE",
    6: "ROTATE_270",
    7: "TRANSVERSE",
    8: "ROTATE_90",
}
# Pillow's own limit: 512 MiB as RGB.
_MOST_PIXELS = 178_956_970
# What PIL calls the pixels of a file with 16 bits per channel; BGR;16 has 16 bits for all of them.
_SIXTEEN_BITS = re.compile(r"(?<!BGR);16")


class Decoded(NamedTuple):
    """One image: pixels uint8 (C, H, W), its original mode and (height, width), and any conversion worth reporting."""

    pixels: npt.NDArray[np.uint8]
    mode: str
    size: tuple[int, int]
    change: str


# An image file: its bytes or its path; None if there is none.
Encoded = bytes | Path | None
Batch = tuple[Sequence[Encoded], npt.NDArray[np.int64]]


class EncodedSplit(ABC):
    """A split as stored: encoded images and labels. `where` names the source in messages."""

    def __init__(self, name: str, where: str) -> None:
        self.name = name
        self.where = where

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def batches(self, size: int) -> Iterator[Batch]:
        """Batches of up to `size` encoded images and labels int64 (B,), in order. Raises DataError for invalid ones."""

    def named(self, index: int) -> str:
        """What messages call an image."""
        return str(index)

    def decoder(self, size: tuple[int, int], mode: str) -> Callable[[int, Encoded], Decoded]:
        """A function (index, image file) -> Decoded at `size` (height, width) in `mode`, see `Preprocess.mode`.

        It raises DataError for damaged images.
        """
        return functools.partial(self._decode, size, mode)

    def _decode(self, size: tuple[int, int], mode: str, index: int, encoded: Encoded) -> Decoded:
        try:
            # Read here, in one of several threads: a file on NFS takes milliseconds to open.
            content = encoded.read_bytes() if isinstance(encoded, Path) else encoded
            return decode(content or b"", size, mode)
        except Exception as error:  # PIL's decoders raise almost anything on damaged bytes
            # An error of the file system has a number, one of PIL about the content has none.
            known = isinstance(error, ValueError) or (isinstance(error, OSError) and error.errno is not None)
            reason = brief(error).removeprefix("ValueError: ") if known else f"it is damaged ({brief(error)})"
            raise DataError(
                f"{self.where}: split {self.name!r}, image {self.named(index)} cannot be decoded: {reason}; "
                "replace the file that holds it, or remove it from the data set"
            ) from None


class ValueSplit(EncodedSplit):
    """A split that holds no images but what a network takes: float32 or int64 (N, ...), kept as it is."""

    def __init__(self, name: str, where: str, values: npt.NDArray[Any], labels: npt.NDArray[np.int64]) -> None:
        super().__init__(name, where)
        self.values, self.labels = values, labels

    def __len__(self) -> int:
        return len(self.values)

    def batches(self, size: int) -> Iterator[Batch]:
        """Never called: there is nothing to decode."""
        raise NotImplementedError


def encoded_image(image: PilImage) -> bytes:
    """A file with the same pixels, which is decoded as those of other sources are."""
    file = io.BytesIO()
    # Without compression, which would take most of the time. PNG has no CMYK.
    if image.mode == "CMYK":
        image.save(file, "TIFF")
    else:
        image.save(file, "PNG", compress_level=0, exif=image.info.get("exif", b""))
    return file.getvalue()


def decode(encoded: bytes, size: tuple[int, int], mode: str = "RGB") -> Decoded:
    """Decode an image file to `mode`, RGB, L or RGBA, and resize it to (height, width), as torchvision does PIL's.

    Of several frames, the first. Raises ValueError, or what Pillow raises, for files that are damaged or not supported.
    """
    from PIL import Image

    # Pillow warns from half of its limit, and does not name the size when it refuses.
    Image.MAX_IMAGE_PIXELS = None
    with _opened(encoded) as image:
        original = (image.height, image.width)
        if image.height * image.width > _MOST_PIXELS:
            raise ValueError(
                f"it has {image.height} x {image.width} pixels, more than the {_MOST_PIXELS:,} that are read; make it "
                "smaller"
            )
        frames = "first of several frames" if getattr(image, "is_animated", False) else ""
        deep = "16 bits to 8" if any(_SIXTEEN_BITS.search(str(tile)) for tile in getattr(image, "tile", ())) else ""
        turned = image.getexif().get(_ORIENTATION) in _TURNS
        converted, change = _converted(image, mode)
        # Asked again: PIL turns a TIFF while it loads it, and then forgets the orientation.
        turn = _TURNS.get(image.getexif().get(_ORIENTATION, 1))
        upright = converted.transpose(Image.Transpose[turn]) if turn else converted
        resized = upright.resize((size[1], size[0]), Image.Resampling.BILINEAR)
        changes = ", ".join(filter(None, (frames, deep, change, "turned upright" if turned else "")))
        return Decoded(np.atleast_3d(np.asarray(resized)).transpose(2, 0, 1), image.mode, original, changes)


def _opened(encoded: bytes) -> PilImage:
    from PIL import Image, UnidentifiedImageError

    if not encoded:
        raise ValueError("it has no bytes")
    try:
        return Image.open(io.BytesIO(encoded))
    except UnidentifiedImageError:
        # Its message names only the buffer.
        raise ValueError(
            f"it begins with {encoded[:9]!r}: no image that Pillow reads; save it as PNG or JPEG with 8 or 16 bits"
        ) from None


def _converted(image: PilImage, mode: str) -> tuple[PilImage, str]:
    """The image in `mode`; also returns which conversion was needed beyond PIL's `convert`.

    `convert` clips 16-bit grey at 255, so that nearly all of it becomes white, and reveals the colour hidden under
    transparent pixels. Raises ValueError for modes whose value range is unknown.
    """
    from PIL import Image

    # Older versions of PIL open a 16-bit PNG in mode I (32-bit integers).
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PNG"):
        image = _from_16_bits(image)
    if image.mode in ("I", "F"):
        raise ValueError(f"its mode is {image.mode!r}, whose value range is unknown; save it with 8 or 16 bits")
    if not image.has_transparency_data:
        # Grey stays as it is: the weights of red, green and blue add up to 1.
        return image.convert("RGB").convert(mode), "CMYK to RGB" if image.mode == "CMYK" else ""
    shown = image.convert("RGBA")
    if mode == "RGBA" or np.asarray(shown)[..., 3].min() == 255:
        return shown.convert(mode), ""
    # Pixels under full transparency have arbitrary colours; black replaces them.
    ground = Image.new("RGBA", image.size, (0, 0, 0, 255))
    return Image.alpha_composite(ground, shown).convert("RGB").convert(mode), "transparency over black"


def _from_16_bits(image: PilImage) -> PilImage:
    """16-bit grey as L, or as LA if one grey value means transparent, which PIL's `convert` ignores."""
    from PIL import Image

    grey = np.asarray(image)
    pixels = Image.fromarray((grey >> 8).astype(np.uint8))
    hidden = grey == image.info.get("transparency", -1)
    if hidden.any():
        pixels.putalpha(Image.fromarray(np.where(hidden, 0, 255).astype(np.uint8)))
    return pixels
