"""The exact states of a run on disk: durable, checksummed, and the newest complete one restored.

The name of a state's file holds the step and the SHA-256 of its content. One rename commits both, and a reader
recognizes a torn, truncated or corrupted file.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from relay.errors import CheckpointError
from relay.files import remove_leftovers, replace_file, sync_directory
from relay.program.serialization import from_bytes, to_bytes

# Suffix of skipped states. It is not a state's name, so they are neither counted nor tried again.
_SKIPPED = ".unused"
# What torch raises for a state whose names and types are right and whose content does not fit.
_MISFITS = (RuntimeError, ValueError, TypeError, KeyError, IndexError, AttributeError)
_NAME = re.compile(r"^step_(\d{9,})-([0-9a-f]{64})\.ckpt$")


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


def state_name(step: int, checksum: str) -> str:
    """The file name of the state after `step` steps. `checksum` has 64 hex digits."""
    return f"step_{step:09d}-{checksum}.ckpt"


def checksum_in(path: Path) -> str:
    """The checksum in the name of a state; "" if `path` is not named like a state."""
    match = _NAME.match(path.name)
    return match.group(2) if match else ""


def list_states(folder: Path) -> list[Path]:
    """The state files in `folder`, newest step first. Their content may be damaged."""
    states = [path for path in folder.iterdir() if _NAME.match(path.name)] if folder.is_dir() else []
    # Two states of one step differ in their checksum: the one written last comes first.
    return sorted(states, key=lambda path: (step_of(path), _written_at(path)), reverse=True)


def step_of(path: Path) -> int:
    """The step in the name of a state; 0 if `path` is not named like a state."""
    match = _NAME.match(path.name)
    return int(match.group(1)) if match else 0


def newest_step(folder: Path) -> int:
    """The step of the newest state in `folder`, going by its name; 0 if there is none."""
    return max((step_of(path) for path in (folder.iterdir() if folder.is_dir() else ())), default=0)


def _written_at(path: Path) -> int:
    """When a state was written; 0 if its run has deleted it for a newer one since it was listed."""
    try:
        return path.stat().st_mtime_ns
    except FileNotFoundError:
        return 0
