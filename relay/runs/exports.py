"""Copies figures and texts of runs into the artifacts folder."""

from __future__ import annotations

from pathlib import Path

from relay.errors import RunError
from relay.files import replace_file
from relay.runs.rundir import SweepDir


def export_figure(figure: Path, sweep: SweepDir, folder: Path) -> Path:
    """Copy a figure of `sweep` into `folder`, with the sweep in its name. Raises RunError as `export_bytes` does."""
    return export_bytes(figure.read_bytes(), folder, f"{sweep.name}_{figure.name}")


def export_bytes(content: bytes | str, folder: Path, name: str) -> Path:
    """Write `content` to `folder` as `name`, atomically. Raises RunError if the folder cannot be written."""
    replace_file(created(folder) / name, content)
    return folder / name


def created(folder: Path) -> Path:
    """The folder, created if it does not exist. Raises RunError if that fails."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"{folder}: cannot be created: {error.strerror}; set paths.artifacts_dir to a folder") from None
    return folder
