"""Which runs `train`, `lr-sweep`, `grid` and `evaluate` mean. Nothing is written here."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from src.cells import Cell, expand_grid, refine_grid, single_cell
from src.config import Config, make_config
from src.errors import CheckpointError, RunError
from src.results import best_row, read_rows
from src.rundir import SweepDir
from src.sweeps import Request, find_sweep


def train_request(config: Config) -> Request:
    """One full training of the configuration as it stands."""
    tag = "overfit_small" if config.train.overfit_small else "train"
    return Request("train", tag, [single_cell(config, "train", tag)], config)


def lr_sweep_request(config: Config) -> Request:
    """One learning-rate sweep for each seed of `lr_finder.seeds`, or for `train.seed` alone."""
    seeds = config.lr_finder.seeds or (config.train.seed,)
    cells = []
    for index, seed in enumerate(dict.fromkeys(seeds)):
        seeded = make_config(config.to_dict(), "lr_finder.seeds", {"train.seed": seed})
        cells.append(Cell(index, f"seed={seed}", seeded.content_key("lr_sweep"), {"train.seed": seed}, seeded))
    return Request("lr_sweep", config.lr_finder.tag, cells, config)


def grid_request(config: Config, *, refined: bool = False) -> Request:
    """All cells of the grid, or of the narrower one around the best cell of the grid."""
    if refined:
        return Request("grid", config.refine.tag, refine_grid(config, best_overrides(config) or {}), config)
    return Request("grid", config.hparams.tag, expand_grid(config), config)


def best_overrides(config: Config, sweep: SweepDir | None = None) -> dict[str, Any] | None:
    """What makes the best finished cell of this configuration's grid (its newest, or `sweep`); None where none is."""
    if not config.hparams.axes:
        return None
    grid = grid_request(config)
    sweep = sweep or find_sweep(grid.runs_dir, grid.kind, grid.key)
    best = best_row(read_rows(sweep)) if sweep else None
    if sweep is None or best is None:
        return None
    chosen = next(cell for cell in sweep.cells() if cell["name"] == best["run"])
    return {path: value for path, value in chosen["overrides"].items() if path != "train.epochs"}


def with_best_cell(config: Config) -> Config:
    """The configuration with the best cell of its grid in it. Raises RunError where no cell is done."""
    best = best_overrides(config)
    if best is None:
        raise RunError("--best: no cell of this configuration's grid is done yet; run the grid first (make grid)")
    return make_config(config.to_dict(), "the best cell", best)


def evaluation_request(config: Config) -> Request:
    """One evaluation of a checkpoint, `artifacts/best.ckpt` unless another is named. Raises CheckpointError."""
    path = Path(config.evaluation.checkpoint or Path(config.paths.artifacts_dir) / "best.ckpt")
    if path.is_dir():
        raise CheckpointError(f"{path}: is a folder; give the .ckpt file in it with --checkpoint")
    if not path.is_file():
        raise CheckpointError(f"{path}: no such checkpoint; train first (make train), or give one with --checkpoint")
    named = make_config(config.to_dict(), "evaluation", {"evaluation.checkpoint": str(path)})
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    cell = single_cell(named, "evaluate", f"{named.evaluation.split}-{path.stem}-{digest[:8]}")
    return Request("evaluate", "evaluate", [cell], named, extra=digest)
