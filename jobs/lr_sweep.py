"""`lr_sweep`: a range test that suggests a learning rate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from jobs.images import DECIDING, load, preload
from relay.progress import Reporter, StopCheck
from relay.runs.lifecycle import Outcome
from relay.runs.rundir import RunDir, SweepDir
from relay.runs.sweeps import Request
from relay.work import Work

if TYPE_CHECKING:
    from relay.config.sections import Paths
    from relay.results.answer import Answer


def request(config: str, set_: Sequence[str]) -> Request:
    """One LR sweep for each seed."""
    from src.requests import lr_sweep_request

    return lr_sweep_request(load(config, set_))


def execute(run: RunDir, should_stop: StopCheck, reporter: Reporter) -> Outcome:
    """Execute an LR sweep, and export its figure and its suggested rates to artifacts/."""
    from src.artifacts import export_rates
    from src.training.lr_range import sweep_rates

    def publish(result: Mapping[str, Any]) -> None:
        export_rates(run, result)

    return sweep_rates(run, should_stop, reporter, publish)


def show(sweep: SweepDir, paths: Paths, answer: Answer) -> None:
    """Print the suggestion over all seeds, and draw it."""
    from src.outcomes.showing import show_rates

    show_rates(sweep, paths)


LR_SWEEP = Work(
    "lr_sweep",
    "Suggest a learning rate. The rate rises step by step while the loss is watched (a range test).",
    request,
    execute,
    preload,
    show,
    DECIDING,
)
