"""Compares what a run was planned with to what it finds when it starts: its configuration and its images."""

from __future__ import annotations

from typing import Any

from src import hints
from src.config.schema import Config
from src.errors import DataError, RunError
from src.runs.kinds import content_key
from src.runs.rundir import RunDir


def check_as_planned(run: RunDir, config: Config, kind: str, data: str) -> None:
    """Compare the run's configuration and `data`, the digest of its images, with its line of the sweep's manifest.

    Raises RunError if config.yaml was edited after planning or the manifest is damaged, DataError if the images
    have changed. A run directory outside its sweep is not checked.
    """
    row = planned_row(run)
    if row is None:
        return
    if row["key"] != content_key(config, kind):
        raise RunError(
            f"{run.config_file}: is not what the run was planned with; restore it, and start the changed experiment "
            "as a sweep of its own"
        )
    if row.get("data") not in (None, data):
        raise DataError(
            f"{run.label}: the images of dataset.name {config.dataset.name} have changed since it was planned (digest "
            f"{row['data']}, now {data}); restore the images, or start over with these: "
            f"{hints.again('--fresh', saved=run.sweep().meta())}"
        )


def planned_row(run: RunDir) -> dict[str, Any] | None:
    """The run's line of its sweep's manifest; None for a run directory outside its sweep.

    Raises RunError if the manifest is damaged.
    """
    sweep = run.sweep()
    if not sweep.meta_file.is_file():
        return None
    for row in sweep.cells():
        if row["name"] == run.name:
            return row
    fresh = hints.again("--fresh", saved=sweep.meta())
    raise RunError(f"{sweep.cells_file}: has no line for {run.name}; restore it, or start over: {fresh}")
