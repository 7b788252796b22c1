"""What a network predicted for each image of a split: the file from which intervals and paired tests are computed."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from relay.errors import RunError
from relay.files import replace_file

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Predictions:
    """One entry per image, in the order of the split. About 7 bytes per image on disk, twice that with `crossed`.

    `label`, `predicted`: class numbers, int (N,). `confidence`: the softmax probability of `predicted`, float (N,).
    `loss`: the cross-entropy in nats, float (N,). `in_top5`: whether `label` is one of the five most probable, bool
    (N,). `images`: a digest, equal for the same images in the same order, see src/data/dataset.py.

    `crossed`: the same images, each as predicted at an epoch that it did not select: those at even positions at the
    epoch that is the best one on the odd positions, and vice versa. None if no epoch was selected.
    """

    label: NDArray[np.int64]
    predicted: NDArray[np.int64]
    confidence: NDArray[np.float64]
    loss: NDArray[np.float64]
    in_top5: NDArray[np.bool_]
    images: str
    crossed: Predictions | None = None

    @property
    def correct(self) -> NDArray[np.bool_]:
        """Whether each image is classified correctly, bool (N,)."""
        import numpy as np

        return np.equal(self.label, self.predicted)

    def same_images(self, other: Predictions) -> bool:
        """Whether both are of the same images, so that they can be paired."""
        return self.images == other.images and len(self.label) == len(other.label)


# By name, its type on disk and in memory. Half precision has three digits, enough for means over images, and halves the
# file.
_COLUMNS = {
    "label": ("uint16", "int64"),
    "predicted": ("uint16", "int64"),
    "confidence": ("float16", "float64"),
    "loss": ("float32", "float64"),
    "in_top5": ("bool", "bool"),
}
_IMAGES = "images"
# What a network says about an image; crossed predictions have their own, under names with a prefix.
PREDICTED = ("predicted", "confidence", "loss", "in_top5")
_CROSSED = "crossed_"


def encode_predictions(predictions: Predictions) -> bytes:
    """The content of the file; the same predictions give the same bytes."""
    import numpy as np

    buffer = io.BytesIO()
    columns = {name: getattr(predictions, name).astype(kind) for name, (kind, _) in _COLUMNS.items()}
    if predictions.crossed:
        columns |= {_CROSSED + n: getattr(predictions.crossed, n).astype(_COLUMNS[n][0]) for n in PREDICTED}
    columns[_IMAGES] = np.frombuffer(predictions.images.encode(), dtype="uint8")
    np.savez_compressed(buffer, **columns)
    return buffer.getvalue()


def write_predictions(path: Path, predictions: Predictions, check: Callable[[], None]) -> None:
    """Write the file atomically; `check` may veto, as in `replace_file`."""
    replace_file(path, encode_predictions(predictions), check=check)


def read_predictions(path: Path) -> Predictions | None:
    """The content of a file that `write_predictions` wrote; None if there is none. Raises RunError if it is damaged."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise RunError(f"{path}: cannot be read: {error.strerror}") from None
    try:
        return decode_predictions(content)
    # zipfile, zlib, struct and numpy's parser of headers raise almost anything for bytes that they did not write.
    except Exception as error:
        raise RunError(f"{path}: is damaged ({error}); restore it, or evaluate the checkpoint again") from None


def decode_predictions(content: bytes) -> Predictions:
    """What `encode_predictions` encoded, with the digits that the file has.

    Damaged content can raise almost any exception.
    """
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        columns: dict[str, Any] = {name: _column(archive, name, *kinds) for name, kinds in _COLUMNS.items()}
        images = _column(archive, _IMAGES, "uint8", "uint8").tobytes().decode()
        crossed: dict[str, Any] = {}
        # Whichever column has lost its name, another one still shows that there were some.
        if len(archive.namelist()) > len(_COLUMNS) + 1:
            crossed = {name: _column(archive, _CROSSED + name, *_COLUMNS[name]) for name in PREDICTED}
    if len({len(column) for column in (*columns.values(), *crossed.values())}) != 1:
        raise ValueError("its columns differ in length")
    ordinary = Predictions(**columns, images=images)
    return replace(ordinary, crossed=replace(ordinary, **crossed)) if crossed else ordinary


def _column(archive: zipfile.ZipFile, name: str, kind: str, wide: str) -> NDArray[Any]:
    """A column of type `kind`, one-dimensional, as `wide`."""
    import numpy as np

    # Reads to the end, which checks the checksum.
    raw = io.BytesIO(archive.read(f"{name}.npy"))
    version = np.lib.format.read_magic(raw)
    if version != (1, 0):
        raise ValueError(f"{name} has version {version}")
    shape, _, found = np.lib.format.read_array_header_1_0(raw)
    data = raw.read()
    # Before anything is made of this shape, which may say 10^12.
    if found != np.dtype(kind) or shape != (len(data) // found.itemsize,) or len(data) % found.itemsize:
        raise ValueError(f"{name} has type {found} and shape {shape}")
    return np.frombuffer(data, dtype=found).astype(wide)
