"""What a run was planned with: its configuration, written again if it is lost, and the digest of its data.

Both are compared with what the run finds when it starts.
"""

from __future__ import annotations

from pathlib import Path

from relay import hints
from relay.errors import DataError, RunError
from relay.files import replace_file
from relay.log import log
from relay.runs.cells import PlannedRun
from relay.runs.project_snapshot import project_problem
from relay.runs.rundir import RunDir


def check_as_planned(run: RunDir, key: str, data: str, data_name: str) -> None:
    """Compare the `key` of the run's configuration and the digest of its `data` with its line of the sweep's manifest.

    Raises RunError if config.yaml was edited after planning or the manifest is damaged, DataError if the data, which
    messages call `data_name`, has changed. A run directory outside its sweep is not checked.
    """
    planned = planned_run(run)
    if planned is None:
        return
    if planned.key != key:
        raise RunError(
            f"{run.config_file}: differs from the planned one; remove it, and the same command writes it "
            "again as planned; to change the experiment, request a new sweep"
        )
    if planned.data not in (None, data):
        raise DataError(
            f"{run.label}: {data_name} changed after it was planned (digest {planned.data}, now {data}); restore what "
            f"was there, or start over with what is there now: {hints.again('--fresh', saved=run.sweep().meta())}"
        )


def frozen_project(run: RunDir) -> Path:
    """The folder of the user's project that was frozen with the run's sweep. Raises RunError if it was changed."""
    sweep = run.sweep()
    project: Path = (sweep.project / sweep.meta()["project"]).absolute()
    if problem := project_problem(project):
        raise RunError(f"{project}: is no longer the project of {sweep.name}: {problem}; restore it")
    return project


def restore_config(run: RunDir) -> None:
    """Write config.yaml again if it is truncated or missing, alone or with its directory.

    Raises RunError if the sweep does not have it any more.
    """
    sweep = run.sweep()
    if not sweep.meta_file.is_file() or _is_whole(run, sweep.meta()["last_key"]):
        return
    text = sweep.planned_text(run.name)
    if text is None:
        raise RunError(
            f"{run.config_file}: is missing or damaged, and so is its copy in {sweep.configs_file.name}; restore it, "
            f"or start over: {hints.again('--fresh', saved=sweep.meta())}"
        )
    run.path.mkdir(exist_ok=True)
    replace_file(run.config_file, text)
    log.warning(f"{run.label}: its {run.config_file.name} was missing or damaged; it is written again as planned")


def _is_whole(run: RunDir, last_key: str) -> bool:
    """Whether config.yaml reaches to the end of its last key. A YAML file that was cut off may still be valid."""
    try:
        text = run.config_file.read_bytes()
    except FileNotFoundError:
        return False
    return text.endswith(b"\n") and f"\n{last_key}:".encode() in b"\n" + text


def planned_run(run: RunDir) -> PlannedRun | None:
    """The run's line of its sweep's manifest; None for a run directory outside its sweep.

    Raises RunError if the manifest is damaged.
    """
    sweep = run.sweep()
    if not sweep.meta_file.is_file():
        return None
    for cell in sweep.cells():
        if cell.name == run.name:
            return cell
    fresh = hints.again("--fresh", saved=sweep.meta())
    raise RunError(f"{sweep.cells_file}: has no line for {run.name}; restore it, or start over: {fresh}")
