"""A run as its command and its job execute it: the work, and before it counts as done, what goes into artifacts/."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from src.artifacts import export_best, export_bytes
from src.outcome import Outcome
from src.progress import Reporter, StopCheck
from src.rundir import RunDir
from src.yaml_file import json_text


def train_and_export(run: RunDir, should_stop: StopCheck, reporter: Reporter) -> Outcome:
    """Bring a full training to its end; `artifacts/best.ckpt` becomes its best epoch."""
    from src.engine import train

    def publish(result: Mapping[str, Any]) -> None:
        path = export_best(run, result)
        if path:
            reporter.say(f"best weights: {path}")

    return train(run, should_stop, reporter, publish)


def find_rate_and_export(run: RunDir, should_stop: StopCheck, reporter: Reporter) -> Outcome:
    """Bring a learning-rate sweep to its end; its figure and its suggestion go into artifacts/."""
    from src.lr_range import sweep

    def publish(result: Mapping[str, Any]) -> None:
        folder = Path(run.config().paths.artifacts_dir)
        export_bytes(run.figure("lr_finder").read_bytes(), folder, "lr_finder.png")
        export_bytes(json_text(result), folder, "lr_finder.json")
        reporter.say(f"suggested learning rates: {result['suggestion']}")

    return sweep(run, should_stop, reporter, publish)
