"""What a run was planned with: its configuration, written again if it is lost, and the digest of its data.

Both are compared with what the run finds when it starts.
"""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Mapping
from typing import Any

from relay import hints
from relay.errors import DataError, RunError
from relay.files import replace_file
from relay.log import log
from relay.runs.cells import PlannedRun
from relay.runs.rundir import RunDir, SweepDir


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


def write_planned(sweep: SweepDir, texts: Mapping[str, str]) -> None:
    """Keep the text of the config.yaml of each run, by the name of the run."""
    lines = "".join(json.dumps({"name": name, "config": text}) + "\n" for name, text in texts.items())
    # Level 1: the texts of a grid differ in a few words, so more effort gains little. Without a time, so that the same
    # plan is the same file.
    replace_file(sweep.configs_file, gzip.compress(lines.encode(), compresslevel=1, mtime=0))


def _planned_text(run: RunDir) -> str | None:
    """The text of config.yaml that the run was planned with; None if it is no longer known."""
    try:
        lines = gzip.decompress(run.sweep().configs_file.read_bytes()).splitlines()
        planned = (json.loads(line) for line in lines)
        return next((str(each["config"]) for each in planned if each["name"] == run.name), None)
    except (OSError, EOFError, zlib.error, ValueError, KeyError, TypeError):
        return None


def restore_config(run: RunDir) -> None:
    """Write config.yaml again if it is truncated or missing, alone or with its directory.

    Raises RunError if the sweep does not have it any more.
    """
    sweep = run.sweep()
    if not sweep.meta_file.is_file() or _is_whole(run, sweep.meta()["config"]):
        return
    text = _planned_text(run)
    if text is None:
        raise RunError(
            f"{run.config_file}: is missing or damaged, and so is its copy in {sweep.configs_file.name}; restore it, "
            f"or start over: {hints.again('--fresh', saved=sweep.meta())}"
        )
    run.path.mkdir(exist_ok=True)
    replace_file(run.config_file, text)
    log.warning(f"{run.label}: its {run.config_file.name} was missing or damaged; it is written again as planned")


def _is_whole(run: RunDir, planned: Mapping[str, Any]) -> bool:
    """Whether config.yaml reaches to the end of the last section. A YAML file that was cut off may still be valid."""
    try:
        text = run.config_file.read_bytes()
    except FileNotFoundError:
        return False
    return text.endswith(b"\n") and all(f"\n{name}:".encode() in text for name in list(planned)[-1:])


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
