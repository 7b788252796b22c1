"""Exact states of a run on disk: durable, checksummed, the newest whole one found again.

A state's file name holds the step and the SHA-256 of the content, so that one rename commits both, and reading
tells a torn, truncated or flipped file from a whole one. All files are plain `torch.save` dicts of tensors and values.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from src.errors import CheckpointError
from src.files import remove_leftovers, replace_file, sync_directory
from src.runs.checkpoint_names import checksum_in, list_states, state_name
from src.training.serialization import from_bytes, to_bytes

# Of states that were skipped: a name that is no state's, so that they neither count nor come back.
_ASIDE = ".unused"


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
        loaded = from_bytes(data)
    except CheckpointError as error:
        return {}, str(error)
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
