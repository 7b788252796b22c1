"""What each stage of a pipeline asks for, given what the stages before it found."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

import jobs
from hpc.pipeline.directory import Chain
from src.config.loading import make_config
from src.config.schema import Config
from src.errors import RunError
from src.requests import best_cell
from src.results.table import best_row, read_rows
from src.results.terminal import show_value
from src.runs.rundir import SweepDir
from src.runs.sweeps import Request


def stage_request(chain: Chain, link: str) -> Request:
    """The request of a stage. Raises RunError if the stages before it found nothing that it can use."""
    config, factors = chain.config(), chain.meta()["lr_factors"]
    if link == "lr_sweep":
        return jobs.request_of(link, config)
    config = grid_config(config, _suggestion(chain), factors)
    if link == "grid":
        return jobs.request_of(link, config)
    best = best_cell(_sweep_of(chain, "grid"))
    if best is None:
        raise RunError("no cell of the grid has a val/accuracy; see its table")
    best_config = make_config(config.to_dict(), "the best cell", best.overrides)
    if link == "train":
        return jobs.request_of(link, best_config)
    trained = _sweep_of(chain, "train").runs()[0]
    weights = trained.best_file
    if not weights.is_file():
        raise RunError(f"no epoch of {trained.label} had a finite loss on val; there is nothing to evaluate")
    named = make_config(best_config.to_dict(), "the training", {"evaluation.checkpoint": str(weights.absolute())})
    return jobs.request_of(link, named)


def grid_config(config: Config, rate: float, factors: Sequence[float]) -> Config:
    """The configuration with what the LR sweep found: as the rate, or as a grid's axis around it where there are
    factors. An axis that the file gives is left as it is.
    """
    changed: dict[str, Any] = {"train.optimizer.lr": rate}
    if factors:
        changed["hparams.lr"] = [float(f"{rate * factor:.3g}") for factor in factors]
    return make_config(config.to_dict(), "the LR sweep", changed)


def _suggestion(chain: Chain) -> float:
    """The median over the seeds of what each suggests. Raises RunError where none does."""
    results = [run.result() or {} for run in _sweep_of(chain, "lr_sweep").runs()]
    rates = [result["suggestion"]["valley"] for result in results if (result.get("suggestion") or {}).get("valley")]
    if not rates:
        raise RunError("the LR sweep suggests no rate: its loss never fell; widen lr_finder.min_lr and max_lr")
    return float(f"{median(rates):.3g}")


def _sweep_of(chain: Chain, link: str) -> SweepDir:
    return SweepDir(Path(chain.config().paths.runs_dir) / str(chain.standing()[link]["sweep"]))


def stage_found(link: str, sweep: SweepDir) -> str:
    """The result of a finished stage, in a few words."""
    rows = read_rows(sweep)
    if link == "lr_sweep":
        return "valley " + ", ".join(show_value(row.get("valley")) or "none" for row in rows)
    if link == "evaluate":
        loss = show_value(rows[0]["loss"]) or "not finite"
        return f"{rows[0]['split']} accuracy {show_value(rows[0]['accuracy'])}, loss {loss}"
    best = best_row(rows)
    return f"best {best['run']}, val/accuracy {show_value(best['val/accuracy'])}" if best else "nothing measured"
