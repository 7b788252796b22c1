"""From the rows of a split, as stored, to 8-bit RGB pixels of one size.

Importing this module imports neither datasets nor PIL.
"""

from __future__ import annotations

import functools
import io
from collections.abc import Callable, Iterator
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


class Decoded(NamedTuple):
    """One image: pixels uint8 (3, H, W), its original mode and (height, width), and any conversion worth reporting."""

    pixels: npt.NDArray[np.uint8]
    mode: str
    size: tuple[int, int]
    change: str


class EncodedSplit:
    """A split as stored: encoded images and labels. `where` names the source in messages.

    A row may name a file in place of its bytes, in `folder` or, through links, in `linked`.
    """

    def __init__(self, name: str, where: str, data: Any, folder: Path, linked: Path) -> None:
        import datasets

        self.name = name
        self.where = where
        self._folder, self._linked = folder, linked.resolve()
        self._classes = data.features["label"].num_classes
        # Encoded bytes, so that `_decode` can name a damaged image, and `_to_rgb` can treat 16 bits and transparency.
        self._data = data.select_columns(["image", "label"]).cast_column("image", datasets.Image(decode=False))

    def __len__(self) -> int:
        return len(self._data)

    def batches(self, size: int) -> Iterator[tuple[list[bytes | None], npt.NDArray[np.int64]]]:
        """Batches of up to `size` encoded images and labels, in order. Raises DataError for invalid labels."""
        start = 0  # the index of the batch's first image, for messages
        for batch in self._data.iter(batch_size=size):
            labels = np.array([-1 if label is None else label for label in batch["label"]], dtype=np.int64)
            wrong = np.flatnonzero((labels < 0) | (labels >= self._classes))
            if len(wrong):
                raise DataError(f"{self.where}: split {self.name!r}, image {start + wrong[0]} has no valid label")
            yield [self._encoded(start + offset, image) for offset, image in enumerate(batch["image"])], labels
            start += len(labels)

    def _encoded(self, index: int, image: dict[str, Any] | None) -> bytes | None:
        """The image file's bytes: from the row, or from the file that the row names. Raises DataError for others'."""
        if image is None:
            return None
        data: bytes | None = image["bytes"]
        if data is not None or image["path"] is None:
            return data
        # With its links followed: a data set must not bring other files of this machine into the images.
        path: Path = (self._folder / image["path"]).resolve()
        if not path.is_relative_to(self._linked):
            raise DataError(
                f"{self.where}: split {self.name!r}, image {index} is the file {image['path']}, which is outside of "
                f"{self._linked}; copy the file there, or store its bytes in the row"
            )
        if not path.is_file():
            raise DataError(
                f"{self.where}: split {self.name!r}, image {index} is the file {image['path']}, which is not in "
                f"{self._folder}; copy it there, or store its bytes in the row"
            )
        return path.read_bytes()

    def decoder(self, size: tuple[int, int]) -> Callable[[int, bytes | None], Decoded]:
        """A function (index, bytes) -> Decoded at `size` (height, width). It raises DataError for damaged images."""
        return functools.partial(self._decode, size)

    def _decode(self, size: tuple[int, int], index: int, encoded: bytes | None) -> Decoded:
        try:
            return decode(encoded or b"", size)
        except Exception as error:  # PIL's decoders raise almost anything on damaged bytes
            raise DataError(
                f"{self.where}: split {self.name!r}, image {index} cannot be decoded: {brief(error)}; "
                f"replace the file that holds it, or remove the row"
            ) from None


def decode(encoded: bytes, size: tuple[int, int]) -> Decoded:
    """Decode an image file to RGB and resize it to (height, width), as torchvision's Resize does a PIL image."""
    from PIL import Image

    with Image.open(io.BytesIO(encoded)) as image:
        original = (image.height, image.width)
        turned = image.getexif().get(_ORIENTATION) in _TURNS
        rgb, change = _to_rgb(image)
        # Asked again: PIL turns a TIFF while it loads it, and then forgets the orientation.
        turn = _TURNS.get(image.getexif().get(_ORIENTATION, 1))
        upright = rgb.transpose(Image.Transpose[turn]) if turn else rgb
        resized = upright.resize((size[1], size[0]), Image.Resampling.BILINEAR)
        changes = ", ".join(filter(None, (change, "turned upright" if turned else "")))
        return Decoded(np.asarray(resized).transpose(2, 0, 1), image.mode, original, changes)


def _to_rgb(image: PilImage) -> tuple[PilImage, str]:
    """Convert to 8-bit RGB; also returns which conversion was needed beyond PIL's `convert`.

    `convert` clips 16-bit grey at 255, so that nearly all of it becomes white, and reveals the colour hidden under
    transparent pixels. Raises ValueError for modes whose value range is unknown.
    """
    from PIL import Image

    # Older versions of PIL open a 16-bit PNG in mode I (32-bit integers).
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PNG"):
        return _from_16_bits(image)
    if image.has_transparency_data:
        shown = image.convert("RGBA")
        if np.asarray(shown)[..., 3].min() < 255:
            # Pixels under full transparency have arbitrary colours; black replaces them.
            ground = Image.new("RGBA", image.size, (0, 0, 0, 255))
            return Image.alpha_composite(ground, shown).convert("RGB"), "transparency over black"
    if image.mode in ("I", "F"):
        raise ValueError(f"its mode is {image.mode!r}, whose value range is unknown; save it with 8 or 16 bits")
    return image.convert("RGB"), ""


def _from_16_bits(image: PilImage) -> tuple[PilImage, str]:
    """16-bit grey as RGB. One grey value may mean transparent, which PIL's `convert` ignores."""
    from PIL import Image

    grey = np.asarray(image)
    hidden = grey == image.info.get("transparency", -1)
    pixels = np.where(hidden, 0, grey >> 8).astype(np.uint8)
    change = "16 bits to 8, transparency over black" if hidden.any() else "16 bits to 8"
    return Image.fromarray(pixels).convert("RGB"), change
