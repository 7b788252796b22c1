"""What a run was planned with: its configuration, written again if it is lost, and its images.

Both are compared with what the run finds when it starts.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from src import hints
from src.config.loading import Variants, make_config
from src.config.schema import Config
from src.errors import DataError, RunError
from src.files import replace_file
from src.log import log
from src.runs.config_texts import ConfigTexts
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
            f"{run.config_file}: is not what the run was planned with; remove it, and the same command writes it "
            "again as planned; start a changed experiment as a sweep of its own"
        )
    if row.get("data") not in (None, data):
        raise DataError(
            f"{run.label}: the images of dataset.name {config.dataset.name} have changed since it was planned (digest "
            f"{row['data']}, now {data}); restore the images, or start over with these: "
            f"{hints.again('--fresh', saved=run.sweep().meta())}"
        )


def restore_config(run: RunDir) -> None:
    """Write config.yaml again, from its sweep's manifest, if it is missing, with its directory or without, or cut off.

    Raises RunError if the manifest does not have what the run was planned with.
    """
    sweep = run.sweep()
    if not sweep.meta_file.is_file() or _is_whole(run, sweep.meta()["config"]):
        return
    row, meta, source, texts = planned_row(run), sweep.meta(), str(sweep.meta_file), ConfigTexts()
    config = make_config(meta["config"], source)
    if row and row["overrides"]:
        config = Variants(config, source).make(row["overrides"])
    if row and row["key"] != texts.key(config, meta["kind"]):
        raise RunError(
            f"{run.config_file}: is missing or damaged, and {sweep.meta_file.name} no longer says what it was; restore "
            f"it, or start over: {hints.again('--fresh', saved=meta)}"
        )
    run.path.mkdir(exist_ok=True)
    replace_file(run.config_file, texts.text(config))
    log.warning(f"{run.label}: its {run.config_file.name} was missing or damaged; it is written again as planned")


def _is_whole(run: RunDir, planned: Mapping[str, Any]) -> bool:
    """Whether config.yaml reaches to the end of the last section. A YAML file that was cut off may still be valid."""
    try:
        text = run.config_file.read_bytes()
    except FileNotFoundError:
        return False
    return text.endswith(b"\n") and all(f"\n{name}:".encode() in text for name in list(planned)[-1:])


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
