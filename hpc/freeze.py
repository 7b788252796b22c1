"""The code as it is now, kept beside the runs that will execute it, so that editing the checkout changes none of them.

A version is a folder named by its content, so that the same code is kept once, however often it is submitted.
"""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from src.files import replace_file, sync_directory
from src.provenance import FROZEN_VERSION, code_version
from src.yaml_file import json_text

PROJECT_ROOT = Path(__file__).resolve().parent.parent
_LAYERS = ("src", "jobs", "hpc")


def frozen_path(folder: Path) -> Path:
    """Where in `folder` the code as it is now is, or would be, kept. Nothing is written."""
    digest = hashlib.sha256()
    for path in _files():
        digest.update(f"{path.relative_to(PROJECT_ROOT)}\0".encode())
        digest.update(path.read_bytes())
    return (folder / digest.hexdigest()[:12]).absolute()


def freeze(folder: Path) -> Path:
    """Keep the code as it is now in `folder`. Returns the version's own folder, from which `python -m` finds it."""
    target = frozen_path(folder)
    if target.is_dir():
        return target
    folder.mkdir(exist_ok=True)
    building = Path(tempfile.mkdtemp(dir=folder, prefix=".making-"))
    try:
        building.chmod(0o755)
        for path in _files():
            copy = building / path.relative_to(PROJECT_ROOT)
            copy.parent.mkdir(parents=True, exist_ok=True)
            replace_file(copy, path.read_bytes())
        replace_file(building / FROZEN_VERSION, json_text(code_version()))
        building.rename(target)
        sync_directory(folder)
    except BaseException as error:
        shutil.rmtree(building, ignore_errors=True)
        # Another submitter of the same code was faster.
        if not (isinstance(error, OSError) and target.is_dir()):
            raise
    return target


def _files() -> Iterator[Path]:
    for layer in _LAYERS:
        yield from sorted((PROJECT_ROOT / layer).rglob("*.py"))
