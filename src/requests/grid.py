"""The runs of `grid`, and the best finished cell of a grid, which `--refined` and `--best` start from."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from relay import hints
from relay.errors import RunError
from relay.log import log
from relay.results.collection import answer_of_sweep
from relay.results.statements import BestSet
from relay.results.tables.ranking import Ranking
from relay.results.tables.table import Row, SettingResults
from relay.runs.cells import SEED_AXIS
from relay.runs.rundir import SweepDir
from relay.runs.sweeps import Request, find_sweep
from relay.text import counted, shortlist
from src.config.loading import make_config
from src.config.schema import Config
from src.requests.cells import expand_grid, refine_grid


def grid_request(config: Config, *, refined: int = 0, unfinished: bool = False) -> Request:
    """All cells of the grid; with `refined` 1, those of the narrower grid around its best cell; with 2, of the one
    around the best cell of both, and so on.

    If the grid was never started, the narrower one is around the configuration itself. Raises RunError if one of the
    grids is incomplete and `unfinished` is false, or if a narrower one before the last was never started.
    """
    if not refined:
        return expand_grid(config).request("grid", config.hparams.tag)
    best = best_of_grid(config, "--refined", unfinished=unfinished)
    if best is None:
        return _grid_around(None, config)
    for number in range(1, refined):
        narrower = _best_of(_grid_around(best, config), "--refined", unfinished=unfinished)
        if narrower is None:
            raise RunError(
                f"--refined, given {refined} times: the grid around {best.row['run']} of {best.sweep.name} has no "
                f"result yet; give it {counted(number, 'time')} first"
            )
        best = _better(best, narrower)
    log.info(f"--refined: around {best}")
    if best.undecided:
        log.info(f"--refined: {best.undecided}")
    return _grid_around(best, config)


def _grid_around(best: BestCell | None, config: Config) -> Request:
    plan = refine_grid(config, best.overrides if best else {})
    return plan.request("grid", config.refine.tag, origin=best.origin() if best else None)


@dataclass(frozen=True)
class BestCell:
    """The leading setting of a grid, as its statements name it: its best run, and the overrides of its cells, except
    the number of epochs and an axis of seeds.
    """

    sweep: SweepDir
    select: Ranking
    setting: SettingResults
    row: Row
    overrides: Mapping[str, Any]
    best_set: BestSet | None

    @property
    def undecided(self) -> str:
        """Which other settings may be as good, in a sentence; "" if there are none, or it is not known."""
        found = self.best_set
        if found is None or len(found.names) < 2:
            return ""
        others = counted(found.compared - 1, "other setting")
        return f"{len(found.names) - 1} of the {others} may be as good; the next one is {found.names[1]}"

    def origin(self) -> dict[str, Any]:
        """Where a narrower grid around it came from, for its sweep.yaml."""
        return {"sweep": self.sweep.name, "run": self.row["run"], self.select.column: self.row[self.select.column]}

    def __str__(self) -> str:
        seeds = len(self.setting.values)
        mean = f", the mean of {seeds} seeds" if seeds > 1 else ""
        return f"{self.row['run']} of {self.sweep.name}, {self.select.column} {self.setting.mean:.4f}{mean}"


def best_of_grid(config: Config, option: str, *, unfinished: bool) -> BestCell | None:
    """The best cell of this configuration's newest grid; None if there is no grid, or no cell has a result.

    Raises RunError, whose message begins with `option`, if the grid is incomplete and `unfinished` is false, or if all
    its finished cells diverged.
    """
    if not config.hparams.axes:
        return None
    request = grid_request(config)
    best = _best_of(request, option, unfinished=unfinished)
    sweep = find_sweep(request.runs_dir, request.kind, request.key)
    done = sum(run.is_done() for run in sweep.runs()) if sweep else 0
    if sweep and done and best is None:
        raise RunError(
            f"{option}: all {done} finished cells of {sweep.name} diverged; search lower rates (hparams.lr), "
            "or omit this option"
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
            f"{hints.again(saved=sweep.meta())}; to take the best finished cell: {hints.again('--unfinished')}"
        )
    return best_cell(sweep, unfinished=unfinished)


def best_cell(sweep: SweepDir, *, unfinished: bool = False) -> BestCell | None:
    """The best finished cell of a sweep; None if no cell has a result.

    Raises RunError if cells are damaged and `unfinished` is false: one of them may have been the best.
    """
    answer = answer_of_sweep(sweep)
    table = answer.table
    damaged = {str(row["run"]): row["error"] for row in table.rows if row["state"] == "damaged"}
    if damaged and not unfinished:
        raise RunError(
            f"{sweep.name}: {counted(len(damaged), 'cell')} cannot be compared with the others: "
            f"{shortlist(list(damaged.values()), 1)}; once they are restored, or their folders are deleted, to repeat "
            f"what is missing: {hints.again(saved=sweep.meta())}"
        )
    setting, row = answer.best(), answer.best_row()
    if setting is None or row is None:
        return None
    chosen = next(cell for cell in sweep.cells() if cell.name == row["run"])
    # A full training of the best cell has its own number of epochs; and its setting was chosen, not the luckiest seed.
    own = ("train.epochs", *(["train.seed"] if SEED_AXIS in table.axes else []))
    overrides = {path: value for path, value in chosen.overrides.items() if path not in own}
    return BestCell(sweep, table.select, setting, row, overrides, answer.best_set)


def best_of_all(config: Config, *, unfinished: bool = False) -> BestCell:
    """The best cell of this configuration's grid and of the narrower grids that were started from it.

    Raises RunError if no cell is done, or if one of the grids is incomplete and `unfinished` is false.
    """
    best = best_of_grid(config, "--best", unfinished=unfinished)
    if best is None:
        grid = hints.command("hpc.launch", "grid")
        raise RunError(f"--best: no cell of this configuration's grid is done yet; run the grid first: {grid}")
    seen = [best.sweep]
    while (narrower := _best_of(_grid_around(best, config), "--best", unfinished=unfinished)) is not None:
        # Around a cell that is still the best, there is no other grid.
        if narrower.sweep in seen:
            break
        seen.append(narrower.sweep)
        best = _better(best, narrower)
    return best


def _better(first: BestCell, second: BestCell) -> BestCell:
    """The better one of the best cells of two grids; the first, if they are equal."""

    def rank(cell: BestCell) -> tuple[float, float]:
        loss = cell.row.get("val/loss")
        return cell.select.score(cell.setting.mean), -math.inf if loss is None else -loss

    return second if rank(second) > rank(first) else first


def first_grid_of(refined: SweepDir) -> SweepDir | None:
    """The grid whose best cell a refined grid is around; None if `refined` is not of this kind, or there is none."""
    made_from = refined.meta().get("origin")
    if not made_from:
        return None
    origin = SweepDir(refined.path.parent / made_from["sweep"])
    return origin if origin.meta_file.is_file() else None


def with_best_cell(config: Config, *, unfinished: bool = False) -> Config:
    """The configuration with the overrides of its best cell, which is logged. Raises RunError as `best_of_all` does."""
    best = best_of_all(config, unfinished=unfinished)
    log.info(f"--best: {best}")
    return make_config(config.to_dict(), "the best cell", best.overrides)
