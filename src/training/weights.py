"""Weights in files: best.ckpt, written atomically, and any checkpoint, checked before it is loaded into a network."""

from __future__ import annotations

import hashlib
import io
import re
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from relay import hints
from relay.errors import CheckpointError
from relay.files import replace_file
from relay.program.serialization import from_bytes, to_bytes

# The MS-DOS attribute of a folder in a zip file.
_FOLDER = 0x10


def save_weights(path: Path, content: Mapping[str, Any], check: Callable[[], None] = lambda: None) -> None:
    """Write a file of weights atomically. `check` is called just before the rename, and may raise to prevent it.

    Raises CheckpointError if the disk refuses the write.
    """
    try:
        replace_file(path, to_bytes(content), check=check)
    except OSError as error:
        raise CheckpointError(
            f"{path}: cannot be written: {error.strerror}; "
            "free some space or restore the directory, then start the run again"
        ) from error


def load_checkpoint(path: Path, sha256: str | None = None) -> dict[str, Any]:
    """The dict in a checkpoint file, ours or the report's program's, on the CPU; its weights are `model_state_dict`.

    Raises CheckpointError if the file is missing, does not have the digest `sha256`, is damaged, holds objects that
    could run code, or has no weights.
    """
    if not path.is_file():
        raise CheckpointError(hints.missing_checkpoint(path))
    try:
        # Read once: the bytes that are checked are the bytes that are loaded.
        data = path.read_bytes()
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror}") from error
    if sha256 not in (None, hashlib.sha256(data).hexdigest()):
        raise CheckpointError(
            f"{path}: was replaced after this evaluation was planned; restore the file, or ask for a new evaluation"
        )
    damaged = _damaged_part(data)
    if damaged:
        raise CheckpointError(
            f"{path}: is damaged: its part {damaged} differs from what was written; use an intact copy"
        )
    try:
        content = from_bytes(data)
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from None
    if not isinstance(content, dict) or not isinstance(content.get("model_state_dict"), dict):
        found = ", ".join(map(str, content)) if isinstance(content, dict) else type(content).__name__
        raise CheckpointError(f"{path}: has no 'model_state_dict'; it has: {found[:200]}")
    wrong = [name for name, tensor in content["model_state_dict"].items() if not _is_plain(name, tensor)]
    if wrong:
        raise CheckpointError(
            f"{path}: the entry {str(wrong[0])[:80]!r} of its 'model_state_dict' is not a named tensor of real "
            "numbers; save it again with torch.save({'model_state_dict': model.state_dict()}, path)"
        )
    return content


def _is_plain(name: object, tensor: object) -> bool:
    if not isinstance(name, str) or not isinstance(tensor, Tensor) or tensor.is_nested or tensor.is_quantized:
        return False
    return tensor.layout == torch.strided and tensor.device.type == "cpu" and not tensor.is_complex()


def _damaged_part(data: bytes) -> str | None:
    """The first damaged part of a file of `torch.save`, a zip file; None if there is none.

    torch.load does not compare the checksums in a zip file, so damaged weights would load without an error.
    """
    if not data.startswith(b"PK\x03\x04"):
        return None  # torch's old format, or no checkpoint at all; torch.load tells which.
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as file:
            # torch reads nothing for a part that is marked as a folder: its weights would be uninitialized memory.
            folders = [part.filename for part in file.infolist() if part.external_attr & _FOLDER]
            return folders[0] if folders else file.testzip()
    except Exception:  # torch may accept headers that zipfile does not, and read weights from a wrong offset.
        return "its table of contents"


def load_weights(network: nn.Module, state: Mapping[str, Tensor], source: str) -> None:
    """Load the weights `state` into `network`. Raises CheckpointError, which names what does not fit."""
    expected = network.state_dict()
    given = _fit_names(state, expected)
    # BatchNorm counts batches only for a cumulative average, which no network here uses; older versions of torch do not
    # save the count.
    missing = [name for name in expected if name not in given and not name.endswith("num_batches_tracked")]
    unknown = [name for name in given if name not in expected]
    shapes = [
        f"{name} is {list(given[name].shape)}, the model's {list(tensor.shape)}"
        for name, tensor in expected.items()
        if name in given and given[name].shape != tensor.shape
    ]
    problems = [
        *shapes,
        *(f"{name} is missing" for name in missing),
        *(f"{name} is not in the model" for name in unknown),
    ]
    if problems:
        more = f" (and {len(problems) - 3} more)" if len(problems) > 3 else ""
        raise CheckpointError(
            f"{source}: does not fit the configured model: {'; '.join(problems[:3])}{more}. "
            "Set model.type, model.num_classes and the other options of the network to the values that it was trained "
            "with"
        )
    network.load_state_dict(given, strict=False)


def _fit_names(state: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """`state` with the network's names: without wrapper prefixes, and a single-layer classifier without its number.

    DataParallel prefixes `module.` and torch.compile `_orig_mod.`; a layer in a Sequential is `classifier.1.weight`.
    """
    given = {re.sub(r"^(?:(?:module|_orig_mod)\.)+", "", name): tensor for name, tensor in state.items()}
    if "classifier.weight" in expected and "classifier.weight" not in given:
        numbered = {name for name in given if re.fullmatch(r"classifier\.\d+\.(weight|bias)", name)}
        if len(numbered) == 2:
            given |= {f"classifier.{name.rsplit('.', 1)[1]}": given.pop(name) for name in sorted(numbered)}
    return given
