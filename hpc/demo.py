"""`make demo`: the whole way once, with the commands that a user types, and one run interrupted on the way."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Annotated

import typer

from src import hints
from src.cli import ConfigOption, SetOption, overrides_of, run_command
from src.config.loading import make_config
from src.config.schema import Config
from src.errors import RelayError
from src.log import LEVEL_VARIABLE, log
from src.requests import best_of_all, evaluation_request, grid_request, train_request
from src.runs.rundir import RunDir, SweepDir
from src.runs.sweeps import Request, find_sweep

_INTERRUPT_CELL = 2
_INTERRUPT_AFTER_STEP = 10


def main(
    config: ConfigOption = "configs/demo.yaml",
    cluster: Annotated[str, typer.Option("--cluster", metavar="PROFILE")] = "local",
    set_: SetOption = None,
) -> None:
    """Checks, LR sweep, grid (one run is interrupted), full training of the best cell, evaluation, comparison."""
    from src.config.loading import load_config

    loaded = load_config(config, overrides_of(set_))
    started = time.monotonic()
    common = ["--config", config, *(word for value in set_ or [] for word in ("--set", value))]
    placed = [*common, "--cluster", cluster]
    _step(1, "is the pipeline sound?", ["src.checks", *common])
    _step(2, "which learning rate?", ["hpc.launch", "lr-sweep", *placed, "--fresh"])
    with_interruption = threading.Thread(target=_interrupt_one, args=(loaded, time.time()), daemon=True)
    with_interruption.start()
    _step(
        3,
        "the grid; one of its runs is interrupted by the signal that SLURM sends before a time limit",
        ["hpc.launch", "grid", *placed, "--fresh"],
    )
    _step(4, "the best cell in full", ["hpc.launch", "train", "--best", *placed, "--fresh"])
    # Its own weights: artifacts/best.ckpt may hold better ones, or those of another experiment.
    grid = _made_for(grid_request(loaded))
    best = make_config(loaded.to_dict(), "the best cell", best_of_all(loaded).overrides)
    training = _made_for(train_request(best))
    weights = training.runs()[0].best_file
    _step(5, "the best epoch on the test split", ["hpc.launch", "evaluate", "--checkpoint", str(weights), *placed])
    measured = make_config(loaded.to_dict(), "the best epoch", {"evaluation.checkpoint": str(weights)})
    evaluation = _made_for(evaluation_request(measured))
    _step(6, "what each hyperparameter changed", ["src.compare_runs", grid.name, *common])
    _summary(loaded, grid, training, evaluation, time.monotonic() - started)


def _step(number: int, title: str, command: list[str]) -> None:
    print(f"\n=== {number}. {title}\n$ {hints.python(*command)}", flush=True)
    # With --quiet, the steps are quiet, too.
    environment = {**os.environ, LEVEL_VARIABLE: logging.getLevelName(log.level).lower()}
    code = subprocess.run([sys.executable, "-m", *command], env=environment, check=False).returncode
    if code:
        raise RelayError(f"the demo ends here: {hints.python(*command)} gave exit code {code}")


def _interrupt_one(config: Config, since: float) -> None:
    """Wait for a cell to be some steps in, and send its worker SIGUSR2, as SLURM does before it ends a job."""
    while True:
        time.sleep(0.05)
        run = _newest_cell(config, since)
        attempts = run.attempts() if run else []
        if run is None or not attempts or run.result():
            continue
        rows = run.metrics()
        if rows and rows[-1]["step"] >= _INTERRUPT_AFTER_STEP:
            os.kill(int(attempts[-1]["pid"]), signal.SIGUSR2)
            print(f"\n>>> SIGUSR2 to {run.name}, after step {rows[-1]['step']}: save, and come back\n", flush=True)
            return


def _newest_cell(config: Config, since: float) -> RunDir | None:
    request = grid_request(config)
    sweep = find_sweep(request.runs_dir, request.kind, request.key)
    if sweep is None or sweep.meta_file.stat().st_mtime < since:
        return None
    runs = sweep.runs()
    return runs[min(_INTERRUPT_CELL, len(runs) - 1)]


def _made_for(request: Request) -> SweepDir:
    """The demo's own sweep: others of its kind may have been made meanwhile."""
    sweep = find_sweep(request.runs_dir, request.kind, request.key)
    assert sweep
    return sweep


def _summary(config: Config, grid: SweepDir, training: SweepDir, evaluation: SweepDir, seconds: float) -> None:
    from src.results.table import best_row, print_table, read_rows

    rows = read_rows(grid)
    print("\n=== what came out\n")
    print_table(rows, grid.name)
    best = best_row(rows)
    assert best
    trained = training.runs()[0].result() or {}
    tested = evaluation.runs()[0].result() or {}
    print(f"\nbest cell       {best['run']}  val/accuracy {best['val/accuracy']:.4f}")
    test = f"test accuracy {tested['accuracy']:.4f} (n {tested['n']})"
    print(f"trained in full val/accuracy {trained['best']['accuracy']:.4f}, {test}")
    for row in rows:
        if row["interruptions"]:
            ended = [a for a in grid.run(str(row["run"])).attempts() if "last_step" in a]
            story = ", then ".join(f"steps {a['first_step']} to {a['last_step']} ({a['cause']})" for a in ended)
            print(f"interrupted     {row['run']}: {story}")
    artifacts = Path(config.paths.artifacts_dir)
    print(f"tables          {grid.table_file('md')} (.csv, .parquet)")
    print(f"figures         {', '.join(str(path) for path in sorted(artifacts.glob(f'{grid.name}*.png')))}")
    print(f"                of all experiments: {artifacts}/*.png, {artifacts}/checks/*/*.png")
    print(f"weights         {training.runs()[0].best_file}")
    print(f"TensorBoard     {hints.command('hpc.launch', 'tensorboard')}")
    print(f"\nall of it in {seconds:.0f} s")


if __name__ == "__main__":
    run_command(main)
