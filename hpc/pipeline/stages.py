"""The request of each stage, from the results of the stages before it; and its own result in a few words."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median
from typing import Any

import jobs
from hpc.pipeline.directory import Pipeline
from src.config.loading import make_config
from src.config.schema import Config
from src.errors import RunError
from src.requests import best_cell
from src.results.table import read_table
from src.results.terminal import show_value
from src.runs.rundir import SweepDir
from src.runs.sweeps import Request


def stage_request(pipeline: Pipeline, stage: str) -> Request:
    """The request of a stage. Raises RunError if an earlier stage gave no usable result."""
    config, factors = pipeline.config(), pipeline.meta()["lr_factors"]
    if stage == "lr_sweep":
        return jobs.request_of(stage, config)
    config = _grid_config(config, _suggested_rate(pipeline), factors)
    if stage == "grid":
        return jobs.request_of(stage, config)
    best = best_cell(_sweep_of(pipeline, "grid"))
    if best is None:
        raise RunError("no cell of the grid has a result on val; see its table")
    best_config = make_config(config.to_dict(), "the best cell", best.overrides)
    if stage == "train":
        return jobs.request_of(stage, best_config)
    trained = _sweep_of(pipeline, "train").runs()[0]
    weights = trained.best_file
    if not weights.is_file():
        raise RunError(f"no epoch of {trained.label} had a finite loss on val; there is nothing to evaluate")
    named = make_config(best_config.to_dict(), "the training", {"evaluation.checkpoint": str(weights.absolute())})
    return jobs.request_of(stage, named)


def requests_at_start(config: Config, factors: Sequence[float]) -> dict[str, Request]:
    """The requests of the stages that need no results yet, with the configuration's rate for that of the LR sweep.

    Raises ConfigError if a stage could not be planned.
    """
    grid = jobs.request_of("grid", _grid_config(config, config.train.optimizer.lr, factors))
    return {"lr_sweep": jobs.request_of("lr_sweep", config), "grid": grid, "train": jobs.request_of("train", config)}


def _grid_config(config: Config, rate: float, factors: Sequence[float]) -> Config:
    """The configuration with the rate of the LR sweep; with factors, the grid gets an axis of `rate` times each factor.

    Without factors, a rate axis of the configuration stays as it is.
    """
    changed: dict[str, Any] = {"train.optimizer.lr": rate}
    if factors:
        changed["hparams.lr"] = [float(f"{rate * factor:.3g}") for factor in factors]
    return make_config(config.to_dict(), "the LR sweep", changed)


def _suggested_rate(pipeline: Pipeline) -> float:
    """The median of the rates that the seeds suggest, to three digits. Raises RunError if none suggests one."""
    results = [run.result() or {} for run in _sweep_of(pipeline, "lr_sweep").runs()]
    rates = [result["suggestion"]["valley"] for result in results if (result.get("suggestion") or {}).get("valley")]
    if not rates:
        raise RunError("the LR sweep suggests no rate: its loss never fell; widen lr_finder.min_lr and max_lr")
    return float(f"{median(rates):.3g}")


def _sweep_of(pipeline: Pipeline, stage: str) -> SweepDir:
    sweep = pipeline.stage_sweep(stage)
    if sweep is None:
        raise RunError(f"{pipeline.name}: its stage {stage} is not planned yet")
    return sweep


def stage_result(stage: str, sweep: SweepDir) -> str:
    """The result of a finished stage, in a few words."""
    table = read_table(sweep)
    rows, column = table.rows, table.select.column
    if stage == "lr_sweep":
        return "valley " + ", ".join(show_value(row.get("valley")) or "none" for row in rows)
    if stage == "evaluate":
        loss = show_value(rows[0]["loss"]) or "not finite"
        return f"{rows[0]['split']} accuracy {show_value(rows[0]['accuracy'])}, loss {loss}"
    if stage == "grid":
        leading = best_cell(sweep, unfinished=True)
        return (
            f"best {leading.row['run']}, {column} {show_value(leading.setting.mean)}" if leading else "nothing measured"
        )
    best = table.best()
    return f"best {best['run']}, {column} {show_value(best[column])}" if best else "nothing measured"
