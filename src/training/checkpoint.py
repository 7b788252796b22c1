"""Exact states of a run on disk: durable, checksummed, the newest whole one found again.

A state's file name holds the step and the SHA-256 of the content, so that one rename commits both, and reading
tells a torn, truncated or flipped file from a whole one. All files are plain `torch.save` dicts of tensors and values.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import re
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from src.errors import CheckpointError
from src.files import remove_leftovers, replace_file, sync_directory
from src.runs.checkpoint_names import checksum_in, list_states, missing_checkpoint, state_name

# Of states that were skipped: a name that is no state's, so that they neither count nor come back.
_ASIDE = ".unused"
# In the attributes of a part of a zip file.
_FOLDER = 0x10


def save_state(
    folder: Path, step: int, state: Mapping[str, Any], keep: int, check: Callable[[], None] = lambda: None
) -> Path:
    """Write the exact state after `step` steps; then remove all but the newest `keep`, and what was skipped.

    `check` may refuse by raising, just before the new state counts. Raises CheckpointError if the disk refuses; the
    states that were there are whole all the same.
    """
    data = to_bytes(state)
    path = folder / state_name(step, hashlib.sha256(data).hexdigest())
    try:
        replace_file(path, data, check=check)
        for old in [*list_states(folder)[keep:], *folder.glob(f"*{_ASIDE}")]:
            old.unlink(missing_ok=True)
    except OSError as error:
        raise CheckpointError(
            f"{folder}: the checkpoint of step {step} cannot be written: {error.strerror}. "
            "The one before it is whole; free some space or restore the directory, then start the run again"
        ) from error
    return path


def save_weights(path: Path, content: Mapping[str, Any], check: Callable[[], None] = lambda: None) -> None:
    """Write a file of weights for people, whole or not at all, unless `check` refuses by raising.

    Raises CheckpointError if the disk refuses.
    """
    try:
        replace_file(path, to_bytes(content), check=check)
    except OSError as error:
        raise CheckpointError(
            f"{path}: cannot be written: {error.strerror}; "
            "free some space or restore the directory, then start the run again"
        ) from error


def load_newest(
    folder: Path, accept: Callable[[Mapping[str, Any]], str], warn: Callable[[str], None]
) -> dict[str, Any] | None:
    """The newest whole state, on the CPU, or None if there is none.

    `accept` gives the reason why a whole state cannot be used, or "". Each file that is skipped is named by `warn`
    and put aside until the next state is saved. For whoever alone writes there: the folder is made if there is none,
    leftovers of killed writers go. Raises CheckpointError if a state cannot be read now.
    """
    _make(folder)
    remove_leftovers(folder)
    states = list_states(folder)
    for path in states:
        state, reason = _read_whole(path)
        reason = reason or accept(state)
        if not reason:
            return state
        instead = "there is none before it, the run begins anew" if path == states[-1] else "taking the one before it"
        warn(f"checkpoint {path.name[:14]} is not used: {reason}; {instead}")
        # It must not take the place of a whole one among those that are kept, nor be accepted once metrics have grown.
        with contextlib.suppress(OSError):
            path.replace(path.with_suffix(_ASIDE))
    return None


def _make(folder: Path) -> None:
    if not folder.is_dir():
        try:
            folder.mkdir()
            sync_directory(folder.parent)
        except OSError as error:
            raise CheckpointError(
                f"{folder}: cannot be made: {error.strerror}; free some space or fix the permissions"
            ) from error


def _read_whole(path: Path) -> tuple[dict[str, Any], str]:
    try:
        data = path.read_bytes()
    except OSError as error:
        # It may be whole all the same, and to begin anew would be the end of it.
        raise CheckpointError(f"{path}: cannot be read: {error.strerror}; start the run again when it can") from error
    if hashlib.sha256(data).hexdigest() != checksum_in(path):
        return {}, f"its {len(data)} bytes do not have the checksum in its name (torn or damaged)"
    try:
        loaded = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except Exception as error:  # Anything can come out of what is no state.
        return {}, _why_not_loaded(error)
    return (loaded, "") if isinstance(loaded, dict) else ({}, f"it holds a {type(loaded).__name__} and no state")


# What torch raises where a state has the right names and types, and another content.
_MISFITS = (RuntimeError, ValueError, TypeError, KeyError, IndexError, AttributeError)


@contextlib.contextmanager
def restoring(folder: Path, state: Mapping[str, Any]) -> Iterator[None]:
    """Raises CheckpointError if a state of `folder` does not fit what it is put into."""
    try:
        yield
    except _MISFITS as error:
        step = state.get("step", len(state["losses"]))
        reason = " ".join(str(error).split())[:200]
        raise CheckpointError(
            f"{folder}: the state of step {step} does not fit the run: {reason}; remove its file, and the one before "
            "it is used"
        ) from error


def to_bytes(content: Mapping[str, Any]) -> bytes:
    """`torch.save` into memory."""
    buffer = io.BytesIO()
    torch.save(dict(content), buffer)
    return buffer.getvalue()


def load_checkpoint(path: Path, sha256: str | None = None) -> dict[str, Any]:
    """A checkpoint dict, ours or the report's program's: `model_state_dict` beside other entries. On the CPU.

    Read once, so that what is checked is what is loaded. Raises CheckpointError for a file that is missing, has not
    the digest `sha256`, is damaged, needs more than `weights_only`, or holds no model.
    """
    if not path.is_file():
        raise CheckpointError(missing_checkpoint(path))
    try:
        data = path.read_bytes()
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror}") from error
    if sha256 not in (None, hashlib.sha256(data).hexdigest()):
        raise CheckpointError(
            f"{path}: was replaced after this evaluation was planned; put the file back, or ask for a new evaluation"
        )
    damaged = _damaged_part(data)
    if damaged:
        raise CheckpointError(f"{path}: is damaged: {damaged} in it is not what was written; take a whole copy")
    try:
        content = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except Exception as error:  # Anything can come out of damaged bytes.
        raise CheckpointError(f"{path}: {_why_not_loaded(error)}") from None
    if not isinstance(content, dict) or not isinstance(content.get("model_state_dict"), dict):
        found = ", ".join(map(str, content)) if isinstance(content, dict) else type(content).__name__
        raise CheckpointError(f"{path}: there is no 'model_state_dict' in it; found: {found[:200]}")
    wrong = [name for name, tensor in content["model_state_dict"].items() if not _is_plain(name, tensor)]
    if wrong:
        raise CheckpointError(
            f"{path}: {str(wrong[0])[:80]!r} in its 'model_state_dict' is not a tensor of plain numbers under a name; "
            "save it again with torch.save({'model_state_dict': model.state_dict()}, path)"
        )
    return content


def _is_plain(name: object, tensor: object) -> bool:
    if not isinstance(name, str) or not isinstance(tensor, Tensor) or tensor.is_nested or tensor.is_quantized:
        return False
    return tensor.layout == torch.strided and tensor.device.type == "cpu" and not tensor.is_complex()


def _damaged_part(data: bytes) -> str | None:
    """The first part of a file of `torch.save` that is not what was written. torch itself compares no checksums."""
    if not data.startswith(b"PK\x03\x04"):
        return None  # Of an old format, or no checkpoint at all: torch says which.
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as file:
            # torch reads nothing for what is marked as a folder, and takes memory as it is for the weights.
            folders = [part.filename for part in file.infolist() if part.external_attr & _FOLDER]
            return folders[0] if folders else file.testzip()
    except Exception:  # Whatever zipfile trips over in damaged headers, torch may still read, from a wrong place.
        return "its table of contents"


def _why_not_loaded(error: Exception) -> str:
    needs = re.search(
        r"(?:GLOBAL|Unsupported (?:global|class)|unrecognized function)[: ]+(?:GLOBAL )?([\w.<> ]+)", str(error)
    )
    if needs:
        what = needs.group(1).split(" was ")[0].strip()
        return (
            f"refused, it holds more than tensors and plain values ({what}), and loading "
            "that could run code; save it again with torch.save({'model_state_dict': model.state_dict()}, path)"
        )
    return "not a whole checkpoint: torch cannot read it; it is torn, or another kind of file"


def load_weights(network: nn.Module, state: Mapping[str, Tensor], source: str) -> None:
    """Put weights into `network`. Raises CheckpointError that names what does not fit."""
    expected = network.state_dict()
    given = _fit_names(state, expected)
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
        *(f"{name} is not the model's" for name in unknown),
    ]
    if problems:
        more = f" (and {len(problems) - 3} more)" if len(problems) > 3 else ""
        raise CheckpointError(
            f"{source}: does not fit the configured model: {'; '.join(problems[:3])}{more}. "
            "Set model.type, model.num_modules, model.branch_channels, model.stem_channels and model.num_classes to "
            "what it was trained with"
        )
    network.load_state_dict(given, strict=False)


def _fit_names(state: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Names without the prefixes of wrappers; a lone Linear of `classifier` under whatever number it was saved."""
    given = {re.sub(r"^(?:(?:module|_orig_mod)\.)+", "", name): tensor for name, tensor in state.items()}
    if "classifier.weight" in expected and "classifier.weight" not in given:
        numbered = {name for name in given if re.fullmatch(r"classifier\.\d+\.(weight|bias)", name)}
        if len(numbered) == 2:
            given |= {f"classifier.{name.rsplit('.', 1)[1]}": given.pop(name) for name in sorted(numbered)}
    return given
