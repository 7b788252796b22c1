"""What is taken out of run directories for people: best.ckpt with its config, figures, reports."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from filelock import FileLock

from src import yaml_file
from src.errors import RunError
from src.files import read_json, replace_file
from src.rundir import RunDir


def export_best(run: RunDir, result: Mapping[str, Any]) -> Path | None:
    """Make the best weights of a training `artifacts/best.ckpt`, with their config, source and `result` beside it.

    A best.ckpt that exists nowhere else is kept under a name with its date. None where the run has no best epoch.
    Raises RunError where the folder cannot be written.
    """
    if not run.best_file.is_file():
        return None
    config = run.config()
    folder = _made(Path(config.paths.artifacts_dir))
    target, content = folder / "best.ckpt", run.best_file.read_bytes()
    source = {"run": str(run.path), "sha256": hashlib.sha256(content).hexdigest(), "result": result}
    # The three belong together, and two trainings may end at once.
    with FileLock(folder / ".best.lock"):
        _keep_unknown(target)
        replace_file(target, content)
        replace_file(target.with_suffix(".json"), yaml_file.json_text(source))
        replace_file(target.with_suffix(".yaml"), yaml_file.dump_yaml(config.to_dict()))
    return target


def _keep_unknown(target: Path) -> None:
    if not target.is_file():
        return
    digest = hashlib.sha256(target.read_bytes()).hexdigest()
    source = read_json(target.with_suffix(".json")) or {}
    origin = RunDir(Path(str(source.get("run", "")))).best_file
    if origin.is_file() and hashlib.sha256(origin.read_bytes()).hexdigest() == digest:
        return
    target.rename(
        target.with_name(f"best-{time.strftime('%Y%m%d-%H%M%S', time.localtime(target.stat().st_mtime))}.ckpt")
    )


def export_bytes(content: bytes | str, folder: Path, name: str) -> Path:
    """Put `content` into `folder`, whole, under `name`. Raises RunError where the folder cannot be written."""
    replace_file(_made(folder) / name, content)
    return folder / name


def _made(folder: Path) -> Path:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"{folder}: cannot be made: {error.strerror}; set paths.artifacts_dir to a folder") from None
    return folder
