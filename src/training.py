"""A run as its command and its job execute it: the work, and before it counts as done, what goes into artifacts/."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from src.artifacts import export_best, export_bytes
from src.outcome import Outcome
from src.progress import Reporter, StopCheck
from src.rundir import RunDir, SweepDir
from src.yaml_file import json_text


def train_and_export(run: RunDir, should_stop: StopCheck, reporter: Reporter) -> Outcome:
    """Bring a full training to its end; `artifacts/best.ckpt` becomes its best epoch."""
    from src.engine import train

    def publish(result: Mapping[str, Any]) -> None:
        reporter.say(f"{run.label}: {export_best(run, result)}")

    return train(run, should_stop, reporter, publish)


def export_done(sweep: SweepDir) -> None:
    """Make a training that was done before `artifacts/best.ckpt`, as --replace-best asks; one on its way does so itself
    where it was planned with --replace-best.
    """
    for run in sweep.runs():
        result = run.result()
        if result:
            print(f"{run.label}: {export_best(run, result, replace=True)}", flush=True)


def find_rate_and_export(run: RunDir, should_stop: StopCheck, reporter: Reporter) -> Outcome:
    """Bring a learning-rate sweep to its end; its figure and its suggestion go into artifacts/."""
    from src.lr_range import sweep

    def publish(result: Mapping[str, Any]) -> None:
        folder = Path(run.config().paths.artifacts_dir)
        export_bytes(run.figure("lr_finder").read_bytes(), folder, "lr_finder.png")
        export_bytes(json_text(result), folder, "lr_finder.json")
        reporter.say(f"suggested learning rates: {result['suggestion']}")

    return sweep(run, should_stop, reporter, publish)
