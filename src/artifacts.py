"""What is copied from run directories into the artifacts folder: best.ckpt with its config, figures, reports."""

from __future__ import annotations

import contextlib
import hashlib
import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock

from relay.config import yaml_file
from relay.config.sections import Paths, Select
from relay.errors import RelayError, RunError
from relay.files import read_json, replace_file
from relay.log import log
from relay.runs import records
from relay.runs.exports import created, export_bytes
from relay.runs.planned import planned_run, restore_config
from relay.runs.rundir import RunDir, SweepDir
from relay.runs.sweeps import sweeps, with_whole_manifests
from src.config.keys import TRAINING, content_key
from src.config.loading import config_of, make_config
from src.config.schema import Config

# The works whose runs are trainings.
_TRAININGS = ("train", "grid", "compare")


def export_best(run: RunDir, result: Mapping[str, Any], *, replace: bool = False) -> str:
    """Copy the best weights of a training to `artifacts/best.ckpt`, with their config, source and `result` beside it.

    An existing best.ckpt is replaced only if it is of the same run, if the new weights are better on the same images
    and split, or if `replace` or checkpoint.replace_best is set. If no run directory has a copy of it, it is renamed,
    not deleted. Returns one line that says what was done. Raises RunError if the folder cannot be written.
    """
    if not run.best_file.is_file():
        return "no best epoch, so artifacts/best.ckpt stays as it is"
    config = config_of(run)
    folder = created(config.paths.artifacts)
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
    if before and replaced and _is_better(before, source, select):
        replaced += ", which is better"
    return f"best weights: {target}, {_shown(source, select)}{replaced}"


def _measured_on(run: RunDir, config: Config) -> dict[str, Any]:
    """Equal for two trainings if their metrics on val are comparable."""
    planned = planned_run(run)
    split = config.dataset.split.model_dump(mode="json")
    return {"data": planned.data if planned else None, "split": split, "classes": config.model.classes}


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
        return f"it is of {before['run']}, on other data or another split"
    if _score(source, select) > _score(before, select):
        return ""
    return f"{_shown(before, select)} is not worse than {_shown(source, select)}"


def _value(source: Mapping[str, Any], select: Select) -> float:
    return float(source["result"]["best"][select.name])


def _score(source: Mapping[str, Any], select: Select) -> tuple[float, float]:
    best = (source.get("result") or {}).get("best") or {}
    value, loss = best.get(select.name), best.get("loss")
    # Below everything that was measured.
    return (-math.inf, 0.0) if value is None or loss is None else (select.score(value), -loss)


def _is_better(one: Mapping[str, Any], other: Mapping[str, Any], select: Select) -> bool:
    """Whether both were measured on the same images, and `one` has the better value."""
    same = one.get("measured_on") == other.get("measured_on") and (one.get("measured_on") or {}).get("data") is not None
    return same and _score(one, select)[0] > _score(other, select)[0]


@dataclass(frozen=True)
class BetterTraining:
    """A finished training that is better than the one whose weights `file`, artifacts/best.ckpt, holds.

    `kept`, `run`: their labels. `column`, `kept_value`, `value`: the selecting metric of both. `weights`: of the better
    one.
    """

    file: Path
    kept: str
    kept_value: float
    column: str
    run: str
    value: float
    weights: Path


def better_training(paths: Paths, select: Select) -> BetterTraining | None:
    """The best of all finished trainings if it is better than artifacts/best.ckpt on the same images and split, and
    still has its weights; cells of grids and comparisons, whose weights are not exported, are among them.

    None if there is none, or nothing is known about artifacts/best.ckpt. Damaged runs are passed by.
    """
    file = paths.artifacts / "best.ckpt"
    kept = _source_of(file)
    data = ((kept or {}).get("measured_on") or {}).get("data")
    if kept is None or data is None:
        return None
    better: list[tuple[float, RunDir, dict[str, Any]]] = []
    for run in _trainings_on(data, paths.runs):
        with contextlib.suppress(RelayError):
            result = run.result() or {}
            source = {"run": str(run.path), "result": result}
            score = _score(source, select)[0]
            ended_well = result.get("outcome") != "diverged" and run.best_file.is_file()
            if ended_well and score > _score(kept, select)[0]:
                better.append((score, run, source))
    # The configuration of a run takes long to read: only of those that are better, and the best one first.
    for _, run, source in sorted(better, key=lambda each: each[0], reverse=True):
        with contextlib.suppress(RelayError):
            if _is_better({**source, "measured_on": _measured_on(run, config_of(run))}, kept, select):
                label, values = RunDir(Path(kept["run"])).label, (_value(kept, select), _value(source, select))
                return BetterTraining(file, label, values[0], select.column, run.label, values[1], run.best_file)
    return None


def _trainings_on(data: str, runs_dir: Path) -> Iterator[RunDir]:
    """The runs of trainings that were planned on the images with this digest."""
    for sweep in with_whole_manifests(sweeps(runs_dir)):
        if sweep.kind in _TRAININGS:
            yield from (sweep.run(cell.name) for cell in sweep.cells() if cell.data == data)


def better_training_statements(paths: Paths, select: Select, say: Callable[..., str]) -> list[str]:
    """A sentence if artifacts/best.ckpt is not the best of the finished trainings."""
    found = better_training(paths, select)
    if found is None:
        return []
    facts = {**asdict(found), "kept_value": f"{found.kept_value:.4f}", "value": f"{found.value:.4f}"}
    return [say("better_training", **facts)]


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


def checks_folder(config: Config, file: str) -> Path:
    """Where `src.checks` writes for the configuration in `file`: the checks of one experiment do not overwrite those of
    another.
    """
    name = f"{Path(file).stem}-{content_key(config, TRAINING)[:8]}"
    return config.paths.artifacts / "checks" / name


def replace_best_by(sweep: SweepDir) -> None:
    """Export the weights of a training to artifacts/best.ckpt whatever is there, as --replace-best asks.

    A training that is not done exports them at its end, even if it was planned without that option.
    """
    for run in sweep.runs():
        if not run.is_done():
            restore_config(run)  # Before it is read and written again.
        config = config_of(run)
        if not run.is_done() and not config.checkpoint.replace_best:
            # `export_best` reads it at the end of the training. It is no part of the run's key: it changes no result.
            asked = make_config(config.to_dict(), str(run.config_file), {"checkpoint.replace_best": True})
            replace_file(run.config_file, yaml_file.dump_yaml(asked.to_dict()))
        result = run.result()
        if result:
            print(f"{run.label}: {export_best(run, result, replace=True)}", flush=True)


def export_rates(run: RunDir, result: Mapping[str, Any]) -> None:
    """Export the figure of an LR sweep and its suggested rates."""
    folder, name = config_of(run).paths.artifacts, f"{run.sweep().name}_{run.name}"
    export_bytes(yaml_file.json_text(result), folder, f"{name}.json")
    if run.figure("lr_finder").is_file():
        log.info(f"wrote {export_bytes(run.figure('lr_finder').read_bytes(), folder, f'{name}.png')}")
    log.info(f"suggested learning rates: {result['suggestion']}")
