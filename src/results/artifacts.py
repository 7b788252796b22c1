"""What is copied from run directories into the artifacts folder: best.ckpt with its config, figures, reports."""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from filelock import FileLock

from src.config import yaml_file
from src.config.schema import Config, Select
from src.errors import RunError
from src.files import read_json, replace_file
from src.runs import records
from src.runs.kinds import content_key
from src.runs.planned import planned_row
from src.runs.rundir import RunDir, SweepDir


def export_best(run: RunDir, result: Mapping[str, Any], *, replace: bool = False) -> str:
    """Copy the best weights of a training to `artifacts/best.ckpt`, with their config, source and `result` beside it.

    An existing best.ckpt is replaced only if it is of the same run, if the new weights are better on the same images
    and split, or if `replace` or checkpoint.replace_best is set. If no run directory has a copy of it, it is renamed,
    not deleted. Returns one line that says what was done. Raises RunError if the folder cannot be written.
    """
    if not run.best_file.is_file():
        return "no best epoch, so artifacts/best.ckpt stays as it is"
    config = run.config()
    folder = _create(Path(config.paths.artifacts_dir))
    target, content = folder / "best.ckpt", run.best_file.read_bytes()
    source = {
        "run": str(run.path),
        "sha256": hashlib.sha256(content).hexdigest(),
        "measured_on": _measured_on(run, config),
        "result": result,
    }
    # Two trainings may end at the same time, and their files must not mix.
    with FileLock(folder / ".best.lock"):
        before, select = _source_of(target), config.metrics.select
        reason = (
            _why_kept(before, source, select)
            if target.is_file() and not (replace or config.checkpoint.replace_best)
            else ""
        )
        if reason:
            return f"{target} is kept: {reason}; this run's are {run.best_file} (--replace-best puts them there)"
        _keep_unknown(target, before)
        # A crash between these writes leaves a best.json whose digest is not that of best.ckpt; `_source_of` ignores
        # it.
        replace_file(target, content)
        replace_file(target.with_suffix(".json"), yaml_file.json_text(source))
        replace_file(target.with_suffix(".yaml"), yaml_file.dump_yaml(config.to_dict()))
    replaced = f", in place of {_shown(before, select)}" if before and before["run"] != source["run"] else ""
    return f"best weights: {target}, {_shown(source, select)}{replaced}"


def _measured_on(run: RunDir, config: Config) -> dict[str, Any]:
    """Equal for two trainings if their metrics on val are comparable."""
    row = planned_row(run) or {}
    split = config.dataset.split.model_dump(mode="json")
    return {"data": row.get("data"), "split": split, "classes": config.model.num_classes}


def _source_of(target: Path) -> dict[str, Any] | None:
    """The content of best.json; None if it is missing, damaged, or does not describe the best.ckpt beside it."""
    try:
        source = read_json(target.with_suffix(".json"), records.SOURCE)
    except RunError:
        return None
    return source if source and target.is_file() and source["sha256"] == _digest(target) else None


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _why_kept(before: Mapping[str, Any] | None, source: Mapping[str, Any], select: Select) -> str:
    """Why the existing weights are not replaced by those of `source`; "" if they are."""
    if before is None:
        return "its origin is unknown"
    if before["run"] == source["run"]:
        return ""
    if before.get("measured_on") != source["measured_on"] or source["measured_on"]["data"] is None:
        return f"it is of {before['run']}, on other images or another split"
    if _score(source, select) > _score(before, select):
        return ""
    return f"{_shown(before, select)} is not worse than {_shown(source, select)}"


def _score(source: Mapping[str, Any], select: Select) -> tuple[float, float]:
    best = (source.get("result") or {}).get("best") or {}
    value, loss = best.get(select.name), best.get("loss")
    # Below everything that was measured.
    return (-math.inf, 0.0) if value is None or loss is None else (select.score(value), -loss)


def _shown(source: Mapping[str, Any], select: Select) -> str:
    best = (source.get("result") or {}).get("best") or {}
    run = RunDir(Path(source["run"]))
    value = best.get(select.name)
    return run.label if value is None else f"{run.label} ({select.column} {value:.4f})"


def _keep_unknown(target: Path, source: Mapping[str, Any] | None) -> None:
    if not target.is_file():
        return
    origin = RunDir(Path(source["run"])).best_file if source else None
    if source and origin and origin.is_file() and _digest(origin) == source["sha256"]:
        return
    # A copied file or one of the report's program: no run directory has it, so replacing it would lose it.
    date = time.strftime("%Y%m%d-%H%M%S", time.gmtime(target.stat().st_mtime))
    # With the digest, because two files may have the same date.
    target.rename(target.with_name(f"best-{date}-{_digest(target)[:8]}.ckpt"))


def export_figure(figure: Path, sweep: SweepDir, folder: Path) -> Path:
    """Copy a figure of `sweep` into `folder`, with the sweep in its name. Raises RunError as `export_bytes` does."""
    return export_bytes(figure.read_bytes(), folder, f"{sweep.name}_{figure.name}")


def export_bytes(content: bytes | str, folder: Path, name: str) -> Path:
    """Write `content` to `folder` as `name`, atomically. Raises RunError if the folder cannot be written."""
    replace_file(_create(folder) / name, content)
    return folder / name


def checks_folder(config: Config, file: str) -> Path:
    """Where `src.checks` writes for the configuration in `file`: the checks of one experiment do not overwrite those of
    another.
    """
    name = f"{Path(file).stem}-{content_key(config, 'train')[:8]}"
    return Path(config.paths.artifacts_dir) / "checks" / name


def _create(folder: Path) -> Path:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"{folder}: cannot be created: {error.strerror}; set paths.artifacts_dir to a folder") from None
    return folder
