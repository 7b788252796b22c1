"""A run as its command and its job execute it: the work, then what people want of it into artifacts/."""

from __future__ import annotations

from pathlib import Path

from src.artifacts import export_best, export_file
from src.outcome import Outcome
from src.progress import Reporter, StopCheck
from src.rundir import RunDir


def train_and_export(run: RunDir, should_stop: StopCheck, reporter: Reporter) -> Outcome:
    """Bring a full training to its end; when it is done, `artifacts/best.ckpt` is its best epoch."""
    from src.engine import train

    outcome = train(run, should_stop, reporter)
    if outcome.status == "done":
        path = export_best(run)
        if path:
            reporter.say(f"best weights: {path}")
    return outcome


def find_rate_and_export(run: RunDir, should_stop: StopCheck, reporter: Reporter) -> Outcome:
    """Bring a learning-rate sweep to its end; its figure and its suggestion go into artifacts/."""
    from src.lr_range import sweep

    outcome = sweep(run, should_stop, reporter)
    result = run.result()
    if outcome.status == "done" and result:
        folder = Path(run.config().paths.artifacts_dir)
        export_file(run.figure("lr_finder"), folder, "lr_finder.png")
        export_file(run.result_file, folder, "lr_finder.json")
        reporter.say(f"suggested learning rates: {result['suggestion']}")
    return outcome
