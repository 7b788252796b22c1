"""What is taken out of run directories for people: best.ckpt with its config, figures, reports."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from filelock import FileLock

from src.config import yaml_file
from src.config.schema import Config
from src.errors import RunError
from src.files import read_json, replace_file
from src.runs import records
from src.runs.planned import planned_row
from src.runs.rundir import RunDir, SweepDir


def export_best(run: RunDir, result: Mapping[str, Any], *, replace: bool = False) -> str:
    """Make the best weights of a training `artifacts/best.ckpt`, with their config, source and `result` beside it.

    What is there stays unless it is of the same run, or the new weights are better on the same images and split, or
    `replace` or checkpoint.replace_best asks for it. A best.ckpt that exists nowhere else is kept under a name with its
    date. Returns what was done, in a line. Raises RunError if the folder cannot be written.
    """
    if not run.best_file.is_file():
        return "no best epoch, so artifacts/best.ckpt is left as it is"
    config = run.config()
    folder = _made(Path(config.paths.artifacts_dir))
    target, content = folder / "best.ckpt", run.best_file.read_bytes()
    source = {
        "run": str(run.path),
        "sha256": hashlib.sha256(content).hexdigest(),
        "measured_on": _measured_on(run, config),
        "result": result,
    }
    # The three belong together, and two trainings may end at once.
    with FileLock(folder / ".best.lock"):
        before = _source_of(target)
        reason = (
            _why_kept(before, source) if target.is_file() and not (replace or config.checkpoint.replace_best) else ""
        )
        if reason:
            return f"{target} is kept: {reason}; this run's are {run.best_file} (--replace-best puts them there)"
        _keep_unknown(target, before)
        replace_file(target, content)
        replace_file(target.with_suffix(".json"), yaml_file.json_text(source))
        replace_file(target.with_suffix(".yaml"), yaml_file.dump_yaml(config.to_dict()))
    replaced = f", in place of {_shown(before)}" if before and before["run"] != source["run"] else ""
    return f"best weights: {target}, {_shown(source)}{replaced}"


def _measured_on(run: RunDir, config: Config) -> dict[str, Any]:
    """Equal for two trainings whose val/accuracy and val/loss may be compared."""
    row = planned_row(run) or {}
    split = config.dataset.split.model_dump(mode="json")
    return {"data": row.get("data"), "split": split, "classes": config.model.num_classes}


def _source_of(target: Path) -> dict[str, Any] | None:
    """What best.json says of the best.ckpt beside it; None if there is none, or it is of another file."""
    try:
        source = read_json(target.with_suffix(".json"), records.SOURCE)
    except RunError:
        return None
    return source if source and target.is_file() and source["sha256"] == _digest(target) else None


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _why_kept(before: Mapping[str, Any] | None, source: Mapping[str, Any]) -> str:
    """Why the weights that are there are not to be replaced by those of `source`; "" if they are."""
    if before is None:
        return "nobody knows where it is from"
    if before["run"] == source["run"]:
        return ""
    if before.get("measured_on") != source["measured_on"] or source["measured_on"]["data"] is None:
        return f"it is of {before['run']}, on other images or another split"
    return "" if _score(source) > _score(before) else f"{_shown(before)} is not worse than {_shown(source)}"


def _score(source: Mapping[str, Any]) -> tuple[float, float]:
    best = (source.get("result") or {}).get("best") or {}
    accuracy, loss = best.get("accuracy"), best.get("loss")
    return (-1.0, 0.0) if accuracy is None or loss is None else (accuracy, -loss)


def _shown(source: Mapping[str, Any]) -> str:
    best = (source.get("result") or {}).get("best") or {}
    run = RunDir(Path(source["run"]))
    accuracy = best.get("accuracy")
    return run.label if accuracy is None else f"{run.label} (val/accuracy {accuracy:.4f})"


def _keep_unknown(target: Path, source: Mapping[str, Any] | None) -> None:
    if not target.is_file():
        return
    origin = RunDir(Path(source["run"])).best_file if source else None
    if source and origin and origin.is_file() and _digest(origin) == source["sha256"]:
        return
    date = time.strftime("%Y%m%d-%H%M%S", time.localtime(target.stat().st_mtime))
    # With its digest: two files of one second must not take each other's place.
    target.rename(target.with_name(f"best-{date}-{_digest(target)[:8]}.ckpt"))


def export_figure(figure: Path, sweep: SweepDir, folder: Path) -> Path:
    """Copy a figure of `sweep` into `folder`, under a name that says whose it is. Raises RunError as export_bytes."""
    return export_bytes(figure.read_bytes(), folder, f"{sweep.name}_{figure.name}")


def export_bytes(content: bytes | str, folder: Path, name: str) -> Path:
    """Put `content` into `folder`, whole, under `name`. Raises RunError if the folder cannot be written."""
    replace_file(_made(folder) / name, content)
    return folder / name


def _made(folder: Path) -> Path:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"{folder}: cannot be made: {error.strerror}; set paths.artifacts_dir to a folder") from None
    return folder
