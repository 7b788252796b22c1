"""The exact states of a run on disk: durable, checksummed, and the newest complete one restored.

The name of a state's file holds the step and the SHA-256 of its content. One rename commits both, and a reader
recognizes a torn, truncated or corrupted file.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from relay.errors import CheckpointError
from relay.files import remove_leftovers, replace_file, sync_directory
from relay.program.serialization import from_bytes, to_bytes
from relay.program.state_names import checksum_in, list_states, state_name

# Suffix of skipped states. It is not a state's name, so they are neither counted nor tried again.
_SKIPPED = ".unused"


def save_state(
    folder: Path, step: int, state: Mapping[str, Any], keep: int, check: Callable[[], None] = lambda: None
) -> Path:
    """Write the state after `step` steps, then remove the skipped states and all but the newest `keep`.

    `check` is called just before the rename that commits the state, and may raise to prevent it. Raises CheckpointError
    if the disk refuses the write; the earlier states stay intact.
    """
    data = to_bytes(state)
    path = folder / state_name(step, hashlib.sha256(data).hexdigest())
    try:
        replace_file(path, data, check=check)
        # Only now: replace_file has synced the directory, so a power cut cannot lose the old states and the new one.
        for old in [*list_states(folder)[keep:], *folder.glob(f"*{_SKIPPED}")]:
            old.unlink(missing_ok=True)
    except OSError as error:
        raise CheckpointError(
            f"{folder}: the checkpoint of step {step} cannot be written: {error.strerror}. "
            "The previous one is intact; free some space or restore the directory, then start the run again"
        ) from error
    return path


def load_newest(
    folder: Path, problem_of: Callable[[Mapping[str, Any]], str], warn: Callable[[str], None]
) -> dict[str, Any] | None:
    """The newest usable state, with its tensors on the CPU; None if there is none.

    `problem_of` returns why an intact state cannot be used, or "". `warn` names each skipped state, which is renamed
    and removed at the next save. The caller must be the only writer of `folder`: it is created if it is missing, and
    the temporary files of killed writers are removed. Raises CheckpointError if a state cannot be read now.
    """
    _create(folder)
    remove_leftovers(folder)
    states = list_states(folder)
    for path in states:
        state, problem = _read(path)
        problem = problem or problem_of(state)
        if not problem:
            return state
        last = path == states[-1]
        instead = "there is no earlier one, so the run starts over" if last else "using the one before it"
        warn(f"checkpoint {path.name[:14]} is not used: {problem}; {instead}")
        # Renamed: it must not count among the newest `keep`, nor pass the check of the metrics once there are more.
        with contextlib.suppress(OSError):
            path.replace(path.with_suffix(_SKIPPED))
    return None


def _create(folder: Path) -> None:
    if not folder.is_dir():
        try:
            folder.mkdir()
            sync_directory(folder.parent)
        except OSError as error:
            raise CheckpointError(
                f"{folder}: cannot be created: {error.strerror}; free some space or fix the permissions"
            ) from error


def _read(path: Path) -> tuple[dict[str, Any], str]:
    """The state and "", or an empty state and why the file cannot be used."""
    try:
        data = path.read_bytes()
    except OSError as error:
        # Not skipped: the state may be intact, and a run that starts over would remove it.
        raise CheckpointError(f"{path}: cannot be read: {error.strerror}; start the run again when it can") from error
    if hashlib.sha256(data).hexdigest() != checksum_in(path):
        return {}, f"its {len(data)} bytes do not have the checksum in its name (torn or damaged)"
    try:
        loaded = from_bytes(data)
    except CheckpointError as error:
        return {}, str(error)
    return (loaded, "") if isinstance(loaded, dict) else ({}, f"it holds a {type(loaded).__name__} instead of a state")


# What torch raises for a state whose names and types are right and whose content does not fit.
_MISFITS = (RuntimeError, ValueError, TypeError, KeyError, IndexError, AttributeError)


@contextlib.contextmanager
def restoring(folder: Path, state: Mapping[str, Any]) -> Iterator[None]:
    """Turn what torch raises inside the block into a CheckpointError that names `state`, one of those in `folder`."""
    try:
        yield
    except _MISFITS as error:
        # An LR sweep's state has no `step`: it has one loss per step.
        step = state.get("step", len(state["losses"]))
        reason = " ".join(str(error).split())[:200]
        raise CheckpointError(
            f"{folder}: the state of step {step} does not fit the run: {reason}; remove its file to use "
            "the one before it"
        ) from error
