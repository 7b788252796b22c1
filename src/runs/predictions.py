"""What a network predicted for each image of a split: the file from which intervals and paired tests are computed."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING

from src.errors import RunError
from src.files import replace_file

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Predictions:
    """One entry per image, in the order of the split. About 7 bytes per image on disk.

    `label`, `predicted`: class numbers, int (N,). `confidence`: the softmax probability of `predicted`, float (N,).
    `loss`: the cross-entropy in nats, float (N,). `in_top5`: whether `label` is one of the five most probable, bool
    (N,).
    """

    label: NDArray[np.int64]
    predicted: NDArray[np.int64]
    confidence: NDArray[np.float64]
    loss: NDArray[np.float64]
    in_top5: NDArray[np.bool_]

    @property
    def correct(self) -> NDArray[np.bool_]:
        """Whether each image is classified correctly, bool (N,)."""
        import numpy as np

        return np.equal(self.label, self.predicted)


# Half precision has three digits, enough for means over images, and halves the file.
_ON_DISK = {"label": "uint16", "predicted": "uint16", "confidence": "float16", "loss": "float32", "in_top5": "bool"}


def encode_predictions(predictions: Predictions) -> bytes:
    """The content of the file; the same predictions give the same bytes."""
    import numpy as np

    buffer = io.BytesIO()
    columns = {name: getattr(predictions, name).astype(kind) for name, kind in _ON_DISK.items()}
    np.savez_compressed(buffer, **columns)
    return buffer.getvalue()


def write_predictions(path: Path, predictions: Predictions, check: Callable[[], None]) -> None:
    """Write the file atomically; `check` may veto, as in `replace_file`."""
    replace_file(path, encode_predictions(predictions), check=check)


def read_predictions(path: Path) -> Predictions | None:
    """The content of a file that `write_predictions` wrote; None if there is none. Raises RunError if it is damaged."""
    import numpy as np

    try:
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as content:
            columns = {each.name: content[each.name] for each in fields(Predictions)}
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise RunError(f"{path}: is damaged ({error}); restore it, or evaluate the checkpoint again") from None
    shapes = {column.shape for column in columns.values()}
    if len(shapes) != 1 or len(next(iter(shapes))) != 1:
        raise RunError(f"{path}: its columns differ in length; restore it, or evaluate the checkpoint again")
    wide = {"uint16": "int64", "float16": "float64", "float32": "float64", "bool": "bool"}
    return Predictions(**{name: columns[name].astype(wide[kind]) for name, kind in _ON_DISK.items()})
