"""What is taken out of run directories for people: best.ckpt with its config, figures, reports."""

from __future__ import annotations

import hashlib
import time
from pathlib import Path

from src import yaml_file
from src.files import read_json, replace_file
from src.rundir import RunDir


def export_best(run: RunDir) -> Path | None:
    """Make the best weights of a finished training `artifacts/best.ckpt`, with their config and source beside it.

    A best.ckpt that exists nowhere else is kept under a name with its date. None where the run has no best epoch.
    """
    if not run.best_file.is_file():
        return None
    config = run.config()
    folder = Path(config.paths.artifacts_dir)
    folder.mkdir(parents=True, exist_ok=True)
    target, content = folder / "best.ckpt", run.best_file.read_bytes()
    _keep_unknown(target)
    source = {"run": str(run.path), "sha256": hashlib.sha256(content).hexdigest(), "result": run.result()}
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


def export_file(source: Path, folder: Path, name: str) -> Path:
    """Copy a finished file of a run into `folder`, whole, under `name`."""
    folder.mkdir(parents=True, exist_ok=True)
    replace_file(folder / name, source.read_bytes())
    return folder / name
