"""The best cell of a program's grid, from which `train --best` takes its parameters."""

from __future__ import annotations

from typing import Any

from relay import hints
from relay.errors import RunError
from relay.log import log
from relay.projects.config import ProgramConfig
from relay.projects.request import KIND
from relay.results.collection import answer_of_sweep
from relay.runs.cells import SEED_AXIS
from relay.runs.rundir import SweepDir
from relay.runs.sweeps import sweeps


def best_params(config: ProgramConfig, *, unfinished: bool = False) -> dict[str, Any]:
    """The parameters of the best cell but its seed: a setting was chosen, not the luckiest seed.

    Raises RunError if no cell is done, or if the grid is incomplete and `unfinished` is false.
    """
    sweep = next((each for each in reversed(sweeps(config.paths.runs)) if _is_its_grid(each, config)), None)
    grid = hints.command("hpc.launch", "grid")
    if sweep is None:
        raise RunError(f"--best: there is no grid of this program over these axes yet; run it first: {grid}")
    undone = [run.name for run in sweep.runs() if not run.is_done()]
    if undone and not unfinished:
        raise RunError(
            f"--best: {len(undone)} of {len(sweep.runs())} cells of {sweep.name} are not done; to continue it: {grid}; "
            f"to take the best of the others: {hints.again('--unfinished')}"
        )
    row = answer_of_sweep(sweep).best_row()
    if row is None:
        raise RunError(f"--best: no cell of {sweep.name} has a value of {config.metrics.select.name}; see its table")
    cell = next(cell for cell in sweep.cells() if cell.name == row["run"])
    log.info(f"--best: {cell.name} of {sweep.name}")
    return {
        name: value for path, value in cell.overrides.items() if (name := path.removeprefix("params.")) != SEED_AXIS
    }


def _is_its_grid(sweep: SweepDir, config: ProgramConfig) -> bool:
    """Whether a sweep is a grid of the same program over the same axes. Other parameters may differ: a long training
    may follow a grid of short ones.
    """
    meta, mine = sweep.meta(), config.to_dict()
    theirs = meta["config"]
    if meta["kind"] != KIND or not meta["is_grid"] or theirs["hparams"] != mine["hparams"]:
        return False
    return all(theirs["program"][name] == mine["program"][name] for name in ("function", "command", "name"))
