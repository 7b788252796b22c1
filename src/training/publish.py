"""Trainings and LR sweeps with what they export to artifacts/ before their result is written."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from src.config.loading import make_config
from src.config.yaml_file import dump_yaml, json_text
from src.files import replace_file
from src.log import log
from src.progress import Reporter, StopCheck
from src.results.artifacts import export_best, export_bytes
from src.runs.attempts import Outcome
from src.runs.rundir import RunDir, SweepDir


def train_and_export(run: RunDir, should_stop: StopCheck, reporter: Reporter) -> Outcome:
    """Execute a full training, and export its best weights to artifacts/best.ckpt if they are the best so far."""
    from src.training.trainer import train

    def publish(result: Mapping[str, Any]) -> None:
        log.info(f"{run.label}: {export_best(run, result)}")

    return train(run, should_stop, reporter, publish)


def train_cell(run: RunDir, should_stop: StopCheck, reporter: Reporter) -> Outcome:
    """Execute the training of a cell of a grid or a comparison, which does not replace artifacts/best.ckpt."""
    from src.training.trainer import train

    return train(run, should_stop, reporter)


def replace_best_by(sweep: SweepDir) -> None:
    """Export the weights of a training to artifacts/best.ckpt whatever is there, as --replace-best asks.

    A training that is not done exports them at its end, even if it was planned without that option.
    """
    for run in sweep.runs():
        config = run.config()
        if not run.is_done() and not config.checkpoint.replace_best:
            # `export_best` reads it at the end of the training. It is no part of the run's key: it changes no result.
            asked = make_config(config.to_dict(), str(run.config_file), {"checkpoint.replace_best": True})
            replace_file(run.config_file, dump_yaml(asked.to_dict()))
        result = run.result()
        if result:
            print(f"{run.label}: {export_best(run, result, replace=True)}", flush=True)


def find_rate_and_export(run: RunDir, should_stop: StopCheck, reporter: Reporter) -> Outcome:
    """Execute an LR sweep, and export its figure and its suggested rates to artifacts/."""
    from src.training.lr_range import sweep_rates

    def publish(result: Mapping[str, Any]) -> None:
        folder = Path(run.config().paths.artifacts_dir)
        name = f"{run.sweep().name}_{run.name}"
        export_bytes(json_text(result), folder, f"{name}.json")
        if run.figure("lr_finder").is_file():
            log.info(f"wrote {export_bytes(run.figure('lr_finder').read_bytes(), folder, f'{name}.png')}")
        log.info(f"suggested learning rates: {result['suggestion']}")

    return sweep_rates(run, should_stop, reporter, publish)
