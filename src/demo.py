"""`make demo`: one complete experiment, with the commands that a user types and one run interrupted on purpose."""

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

from relay import hints
from relay.cli import ConfigOption, SetOption, overrides_of, run_command
from relay.errors import RelayError
from relay.log import LEVEL_VARIABLE, log
from relay.runs.attempt import last_attempt
from relay.runs.rundir import RunDir, SweepDir
from relay.runs.sweeps import Request, find_sweep
from src.config.loading import make_config
from src.config.schema import Config
from src.requests import best_of_all, evaluation_request, grid_request, train_request

# The third of eight: some cells are done before it, some come after it.
_INTERRUPT_CELL = 2
_INTERRUPT_AFTER_STEP = 10


def main(
    config: ConfigOption = "configs/demo.yaml",
    cluster: Annotated[
        str, typer.Option("--cluster", metavar="PROFILE", help="Where to run: a profile of configs/clusters/.")
    ] = "demo",
    set_: SetOption = None,
) -> None:
    """Show Relay on a small experiment with generated images.

    Seven steps: checks, LR sweep, grid with one interrupted run, training of the best cell, evaluation, comparison,
    report.
    """
    from src.config.loading import load_config

    loaded = load_config(config, overrides_of(set_))
    started = time.monotonic()
    common = ["--config", config, *(word for value in set_ or [] for word in ("--set", value))]
    placed = [*common, "--cluster", cluster]
    _step(1, "Check the experiment: data, initial loss, gradients", ["src.checks", *common])
    _step(2, "Find a learning rate", ["hpc.launch", "lr-sweep", *placed, "--fresh"])
    with_interruption = threading.Thread(target=_interrupt_one, args=(loaded, time.time()), daemon=True)
    with_interruption.start()
    _step(
        3,
        "Train the grid: every combination of rate, network and depth. One run is interrupted on purpose",
        ["hpc.launch", "grid", *placed, "--fresh"],
    )
    _step(4, "Train the best cell in full", ["hpc.launch", "train", "--best", *placed, "--fresh"])
    # Not artifacts/best.ckpt: it may hold better weights of an earlier demo, or those of another experiment.
    grid = _sweep_of(grid_request(loaded))
    best = make_config(loaded.to_dict(), "the best cell", best_of_all(loaded).overrides)
    training = _sweep_of(train_request(best))
    weights = training.runs()[0].best_file
    _step(
        5,
        "Evaluate the best epoch of that training on the test split",
        ["hpc.launch", "evaluate", "--checkpoint", str(weights), *placed],
    )
    evaluated = make_config(loaded.to_dict(), "the best epoch", {"evaluation.checkpoint": str(weights)})
    evaluation = _sweep_of(evaluation_request(evaluated))
    _step(6, "Compare: what did each hyperparameter change?", ["src.compare_runs", grid.name, *common])
    _step(7, "Write the report from these runs; what the demo did not run is a gap in it", ["src.report", *common])
    _summary(loaded, grid, training, evaluation, time.monotonic() - started)


def _step(number: int, title: str, command: list[str]) -> None:
    print(f"\n=== {number}. {title}\n$ {hints.python(*command)}", flush=True)
    # A step is a process of its own: the level hands --quiet and --verbose on to it.
    environment = {**os.environ, LEVEL_VARIABLE: logging.getLevelName(log.level).lower()}
    code = subprocess.run([sys.executable, "-m", *command], env=environment, check=False).returncode
    if code:
        raise RelayError(
            f"the demo stops at step {number}; to see the error again: {hints.python(*command)} (exit code {code})"
        )


def _interrupt_one(config: Config, since: float) -> None:
    """Wait until one cell has done some steps, then send its worker SIGUSR2, as SLURM does before a time limit."""
    while True:
        time.sleep(0.05)
        run = _newest_cell(config, since)
        last = last_attempt(run.attempts()) if run else None
        if run is None or last is None or last.pid is None or run.result():
            continue
        rows = run.metrics()
        if rows and rows[-1]["step"] >= _INTERRUPT_AFTER_STEP:
            os.kill(last.pid, signal.SIGUSR2)
            print(
                f"\n>>> sent SIGUSR2, SLURM's warning before a time limit, to {run.name} after step {rows[-1]['step']}:"
                "\n>>> the run saves its exact state, ends, and resumes\n",
                flush=True,
            )
            return


def _newest_cell(config: Config, since: float) -> RunDir | None:
    request = grid_request(config)
    sweep = find_sweep(request.runs_dir, request.kind, request.key)
    if sweep is None or sweep.meta_file.stat().st_mtime < since:
        return None
    runs = sweep.runs()
    return runs[min(_INTERRUPT_CELL, len(runs) - 1)]


def _sweep_of(request: Request) -> SweepDir:
    """The sweep that this demo made for the request. The newest one may be somebody else's."""
    sweep = find_sweep(request.runs_dir, request.kind, request.key)
    assert sweep
    return sweep


def _summary(config: Config, grid: SweepDir, training: SweepDir, evaluation: SweepDir, seconds: float) -> None:
    from relay.results.collection import answer_of_sweep
    from relay.results.output import print_answer

    answer = answer_of_sweep(grid)
    table = answer.table
    print("\n=== Results\n")
    print_answer(answer, answer.rows())
    best = answer.best_row()
    assert best
    trained = training.runs()[0].result() or {}
    tested = evaluation.runs()[0].result() or {}
    print(f"\nbest cell       {best['run']}  val/accuracy {best['val/accuracy']:.4f}")
    test = f"test accuracy {tested['accuracy']:.4f} (n {tested['n']})"
    print(f"trained in full val/accuracy {trained['best']['accuracy']:.4f}, {test}")
    for row in table.rows:
        if row["interruptions"]:
            ended = [each for each in grid.run(str(row["run"])).attempts() if each.last_step is not None]
            story = ", then ".join(f"steps {each.first_step} to {each.last_step} ({each.cause})" for each in ended)
            print(f"interrupted     {row['run']}: {story}")
    artifacts = Path(config.paths.artifacts_dir)
    print(f"tables          {grid.table_file('md')} (.csv, .parquet)")
    print(f"figures         {', '.join(str(path) for path in sorted(artifacts.glob(f'{grid.name}*.png')))}")
    print(f"                of all experiments: {artifacts}/*.png, {artifacts}/checks/*/*.png")
    print(f"report          {artifacts}/report/report.en.html (.md)")
    print(f"weights         {training.runs()[0].best_file}")
    print(f"TensorBoard     {hints.command('hpc.launch', 'tensorboard')}")
    print(f"\ntotal time      {seconds:.0f} s")


if __name__ == "__main__":
    run_command(main)
