"""The pipeline: LR sweep, grid around its rate, training of the best cell, evaluation of its weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median
from typing import TYPE_CHECKING, Annotated, Any

import typer

from jobs.images import load
from relay.errors import RunError
from relay.runs.rundir import RunDir, SweepDir
from relay.runs.sweeps import Request
from relay.work import Stage, Stages

if TYPE_CHECKING:
    from src.config.schema import Config

# What was asked for: `config` and `options`, as `ask` returns them.
Asked = Mapping[str, Any]
Done = Mapping[str, SweepDir]


def ask(
    config: str,
    set_: Sequence[str],
    *,
    lr_factor: Annotated[
        list[float] | None,
        typer.Option(
            "--lr-factor",
            min=0,
            metavar="FACTOR",
            help="Search this multiple of the LR sweep's rate in the grid; may be repeated.",
        ),
    ] = None,
) -> Asked:
    """The configuration and the factors."""
    return {"config": load(config, set_).to_dict(), "options": {"lr_factors": lr_factor or []}}


def at_start(asked: Asked) -> dict[str, Request]:
    """The requests of the stages that need no results yet, with the configuration's rate for that of the LR sweep."""
    from src.requests import grid_request, lr_sweep_request, train_request

    config = _config(asked)
    grid = grid_request(_with_rate(asked, config.train.optimizer.lr))
    return {"lr_sweep": lr_sweep_request(config), "grid": grid, "train": train_request(config)}


def _lr_sweep(asked: Asked, done: Done) -> Request:
    from src.requests import lr_sweep_request

    return lr_sweep_request(_config(asked))


def _grid(asked: Asked, done: Done) -> Request:
    from src.requests import grid_request

    return grid_request(_with_rate(asked, _suggested_rate(done["lr_sweep"])))


def _train(asked: Asked, done: Done) -> Request:
    from src.requests import train_request

    return train_request(_best_config(asked, done))


def _evaluate(asked: Asked, done: Done) -> Request:
    from src.config.loading import make_config
    from src.requests import evaluation_request

    trained: RunDir = done["train"].runs()[0]
    weights = trained.best_file
    if not weights.is_file():
        raise RunError(f"no epoch of {trained.label} had a finite loss on val; there is nothing to evaluate")
    content = _best_config(asked, done).to_dict()
    return evaluation_request(make_config(content, "the training", {"evaluation.checkpoint": str(weights.absolute())}))


def _config(asked: Asked) -> Config:
    from src.config.loading import make_config

    return make_config(asked["config"], "pipeline.yaml")


def _with_rate(asked: Asked, rate: float) -> Config:
    """The configuration with the rate of the LR sweep; with factors, the grid gets an axis of `rate` times each factor.

    Without factors, a rate axis of the configuration stays as it is.
    """
    from src.config.loading import make_config

    changed: dict[str, Any] = {"train.optimizer.lr": rate}
    if asked["options"]["lr_factors"]:
        changed["hparams.lr"] = [float(f"{rate * factor:.3g}") for factor in asked["options"]["lr_factors"]]
    return make_config(asked["config"], "the LR sweep", changed)


def _best_config(asked: Asked, done: Done) -> Config:
    from src.config.loading import make_config
    from src.requests import best_cell

    best = best_cell(done["grid"])
    if best is None:
        raise RunError("no cell of the grid has a result on val; see its table")
    return make_config(_with_rate(asked, _suggested_rate(done["lr_sweep"])).to_dict(), "the best cell", best.overrides)


def _suggested_rate(sweep: SweepDir) -> float:
    """The median of the rates that the seeds suggest, to three digits. Raises RunError if none suggests one."""
    results = [run.result() or {} for run in sweep.runs()]
    rates = [result["suggestion"]["valley"] for result in results if (result.get("suggestion") or {}).get("valley")]
    if not rates:
        raise RunError("the LR sweep suggests no rate: its loss never fell; widen lr_finder.min_lr and max_lr")
    return float(f"{median(rates):.3g}")


def _found_rates(sweep: SweepDir) -> str:
    from relay.results.tables.table import read_table
    from relay.terminal import show_value

    return "valley " + ", ".join(show_value(row.get("valley")) or "none" for row in read_table(sweep).rows)


def _found_best_cell(sweep: SweepDir) -> str:
    from relay.terminal import show_value
    from src.requests import best_cell

    best = best_cell(sweep, unfinished=True)
    return f"best {best.row['run']}, {best.select.column} {show_value(best.setting.mean)}" if best else _NOTHING


def _found_training(sweep: SweepDir) -> str:
    from relay.results.tables.table import read_table
    from relay.terminal import show_value

    table = read_table(sweep)
    best, column = table.best(), table.select.column
    return f"best {best['run']}, {column} {show_value(best[column])}" if best else _NOTHING


def _found_evaluation(sweep: SweepDir) -> str:
    from relay.results.tables.table import read_table
    from relay.terminal import show_value

    row = read_table(sweep).rows[0]
    loss = show_value(row["loss"]) or "not finite"
    return f"{row['split']} accuracy {show_value(row['accuracy'])}, loss {loss}"


_NOTHING = "nothing measured"
PIPELINE = Stages(
    "Run LR sweep, grid, training and evaluation.\n\nEach stage uses the result of the one before: the grid searches "
    "around the sweep's rate, the training takes the best cell, the evaluation its weights.",
    (
        Stage("lr_sweep", _lr_sweep, _found_rates),
        Stage("grid", _grid, _found_best_cell),
        Stage("train", _train, _found_training),
        Stage("evaluate", _evaluate, _found_evaluation),
    ),
    ask,
    at_start,
)
