"""File names of saved states: the step and the SHA-256 of the content, so that they can be read without torch."""

from __future__ import annotations

import re
from pathlib import Path

_NAME = re.compile(r"^step_(\d{9,})-([0-9a-f]{64})\.ckpt$")


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
