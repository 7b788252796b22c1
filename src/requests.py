"""Which runs `train`, `lr-sweep`, `grid` and `evaluate` mean. Nothing is written here."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from src import hints
from src.config import yaml_file
from src.config.loading import make_config
from src.config.schema import Config
from src.errors import CheckpointError, RunError
from src.files import read_json
from src.log import log
from src.results.table import Row, best_row, read_rows
from src.runs.cells import Cell, expand_grid, refine_grid, single_cell
from src.runs.checkpoint_names import missing_checkpoint
from src.runs.kinds import content_key
from src.runs.rundir import SweepDir
from src.runs.sweeps import Request, find_sweep, with_absolute_paths

# Of a file or directory, in bytes (NAME_MAX).
_LONGEST_NAME = 255


def train_request(config: Config) -> Request:
    """One full training of the configuration as it stands, or its overfit test."""
    tag = "overfit_small" if config.train.overfit_small else "train"
    if config.train.overfit_small:
        epochs = {"train.epochs": config.train.overfit_epochs}
        config = make_config(config.to_dict(), "train.overfit_epochs", epochs)
    return Request("train", tag, [single_cell(config, "train", tag)], config)


def lr_sweep_request(config: Config) -> Request:
    """One LR sweep for each seed of `lr_finder.seeds`, or for `train.seed` alone."""
    seeds = config.lr_finder.seeds or (config.train.seed,)
    cells = []
    for index, seed in enumerate(dict.fromkeys(seeds)):
        seeded = make_config(config.to_dict(), "lr_finder.seeds", {"train.seed": seed})
        cells.append(Cell(index, f"seed={seed}", content_key(seeded, "lr_sweep"), {"train.seed": seed}, seeded))
    return Request("lr_sweep", config.lr_finder.tag, cells, config)


def grid_request(config: Config, *, refined: bool = False, unfinished: bool = False) -> Request:
    """All cells of the grid, or of the narrower one around the best cell of the grid.

    Where that grid is there and not complete, RunError is raised unless an `unfinished` one will do. Where it is not
    there, the narrower one is around the configuration itself.
    """
    if refined:
        best = best_of_grid(config, "--refined", unfinished=unfinished)
        return _grid_around(best.overrides if best else {}, config)
    return Request("grid", config.hparams.tag, expand_grid(config), config)


def _grid_around(best: Mapping[str, Any], config: Config) -> Request:
    return Request("grid", config.refine.tag, refine_grid(config, best), config)


@dataclass(frozen=True)
class BestCell:
    """The best finished cell of a grid, and what makes it."""

    sweep: SweepDir
    row: Row
    overrides: Mapping[str, Any]

    def __str__(self) -> str:
        return f"{self.row['run']} of {self.sweep.name}, val/accuracy {self.row['val/accuracy']:.4f}"


def best_of_grid(config: Config, option: str, *, unfinished: bool) -> BestCell | None:
    """The best cell of this configuration's newest grid; None if there is no grid or nothing measured in it.

    Raises RunError, in the name of the command's `option`, where it is not complete and `unfinished` is not given.
    """
    if not config.hparams.axes:
        return None
    request = grid_request(config)
    best = _best_of(request, option, unfinished=unfinished)
    sweep = find_sweep(request.runs_dir, request.kind, request.key)
    done = sum(run.is_done() for run in sweep.runs()) if sweep else 0
    if sweep and done and best is None:
        raise RunError(
            f"{option}: all {done} cells of {sweep.name} that are done diverged; give lower rates (hparams.lr), "
            "or leave the option away"
        )
    return best


def _best_of(request: Request, option: str, *, unfinished: bool) -> BestCell | None:
    sweep = find_sweep(request.runs_dir, request.kind, request.key)
    if sweep is None:
        return None
    runs = sweep.runs()
    done = sum(run.is_done() for run in runs)
    if done < len(runs) and not unfinished:
        raise RunError(
            f"{option}: only {done} of {len(runs)} cells of {sweep.name} are done; to finish that grid: "
            f"{hints.again(kept=sweep.meta())}; to take the best of what is done: {hints.again('--unfinished')}"
        )
    return best_cell(sweep)


def best_cell(sweep: SweepDir) -> BestCell | None:
    """The best finished cell of a grid; None if nothing was measured."""
    best = best_row(read_rows(sweep))
    if best is None:
        return None
    chosen = next(cell for cell in sweep.cells() if cell["name"] == best["run"])
    return BestCell(sweep, best, {path: value for path, value in chosen["overrides"].items() if path != "train.epochs"})


def best_of_all(config: Config, *, unfinished: bool = False) -> BestCell:
    """The best cell of this configuration's grid and of the narrower grid around it, where there is one.

    Raises RunError if none is done, or a grid is not complete and `unfinished` is not given.
    """
    first = best_of_grid(config, "--best", unfinished=unfinished)
    if first is None:
        grid = hints.command("hpc.launch", "grid")
        raise RunError(f"--best: no cell of this configuration's grid is done yet; run the grid first: {grid}")
    second = _best_of(_grid_around(first.overrides, config), "--best", unfinished=unfinished)
    if second is None:
        return first
    rows = [{**cell.row, "index": number} for number, cell in enumerate((first, second))]
    return first if best_row(rows) == rows[0] else second


def with_best_cell(config: Config, *, unfinished: bool = False) -> Config:
    """The configuration with its best cell in it, which is named on stderr. Raises RunError as `best_of_all` does."""
    best = best_of_all(config, unfinished=unfinished)
    log.info(f"--best: {best}")
    return make_config(config.to_dict(), "the best cell", best.overrides)


def evaluation_request(config: Config) -> Request:
    """One evaluation of a checkpoint, `artifacts/best.ckpt` unless another is named, and of nothing else: the digest of
    the file is part of what is planned. Raises CheckpointError.
    """
    path = Path(config.evaluation.checkpoint or Path(config.paths.artifacts_dir) / "best.ckpt")
    if len(path.name.encode()) > _LONGEST_NAME:
        raise CheckpointError(f"{path.name[:60]}…: no file can have so long a name; give another with --checkpoint")
    if path.is_dir():
        raise CheckpointError(f"{path}: is a folder; give the .ckpt file in it with --checkpoint")
    if not path.is_file():
        raise CheckpointError(missing_checkpoint(path))
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    _check_digest(path, digest, config.evaluation.sha256)
    if config.evaluation.checkpoint is None:
        _check_same_experiment(path, config)
    named = make_config(
        config.to_dict(), "evaluation", {"evaluation.checkpoint": str(path), "evaluation.sha256": digest}
    )
    name = f"{named.evaluation.split}-{path.stem}-{digest[:8]}"
    if len(name.encode()) > _LONGEST_NAME:
        name = f"{named.evaluation.split}-{digest[:8]}"
    cell = single_cell(named, "evaluate", name)
    return Request("evaluate", "evaluate", [cell], named, extra=digest)


def _check_same_experiment(path: Path, config: Config) -> None:
    """Raise CheckpointError if the best weights that nobody asked for by name were trained on other images."""
    beside = path.with_suffix(".yaml")
    if not beside.is_file():
        return
    trained = make_config(yaml_file.read_mapping(beside), str(beside))
    theirs, ours = (images_of(each) for each in (trained, config))
    if theirs == ours:
        return
    own = find_sweep(Path(config.paths.runs_dir), "train", train_request(config).key)
    weights = own.runs()[0].best_file if own else None
    measure_own = (
        f"; to measure the training of this configuration: {hints.again('--checkpoint', str(weights))}"
        if weights and weights.is_file()
        else ""
    )
    raise CheckpointError(
        f"{path}: was trained on other images ({theirs}) than those of this configuration ({ours}){measure_own}; "
        f"to measure it all the same: {hints.again('--checkpoint', str(path))}"
    )


def images_of(config: Config) -> str:
    """Which images a configuration means, in words; equal where they are the same."""
    content = with_absolute_paths("dataset", config.dataset)
    made = ("synthetic_seed", "synthetic_train_per_class", "synthetic_valid_per_class")
    names = ("name", "classes", *(made if content["name"] == "synthetic" else ()))
    return ", ".join(f"{name} {content[name]}" for name in names if content[name] is not None)


def _check_digest(path: Path, digest: str, asked: str | None) -> None:
    """Raise CheckpointError if the file is not the one that is asked for, or that its JSON file beside it is of."""
    beside = path.with_suffix(".json")
    beside_fits = len(beside.name.encode()) <= _LONGEST_NAME
    written = (read_json(beside) or {}).get("sha256") if beside_fits else None
    if asked not in (None, digest):
        raise CheckpointError(f"evaluation.sha256: {asked}, but {path} has {digest}; leave it null to take the file")
    if isinstance(written, str) and written != digest:
        raise CheckpointError(
            f"{path}: is not the file that {beside.name} beside it was written for: it was damaged or replaced. Train "
            f"again, name another one with --checkpoint, or remove {beside} to measure it as it is"
        )
