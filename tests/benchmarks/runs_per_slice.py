"""Times the runs of a task: several at once against one after another, and a later run against the first.

    python -m tests.benchmarks.runs_per_slice [--config FILE] [--set KEY=VALUE] [--at-once 2] [--pairs 5] [--json FILE]

at once   a task whose runs have one thread each: all of them at once, against one after another
warm      from its start to the logged first step: the second run of a task, against the first in a new process

Both sides take turns. Prints the median, the spread, and the ratio of the medians. Without --config, the experiment is
that of the tests, longer. Runs compute on the GPU if there is one and train.device allows it.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from relay.config import yaml_file
from relay.runs.rundir import RunDir
from relay.runs.sweeps import open_sweep
from src.config.loading import config_of, load_config, make_config
from src.config.schema import Config
from src.requests import grid_request
from tests.conftest import ROOT, SMALL

TASK = """
import sys
from pathlib import Path
from hpc.node.task import execute_runs
from relay.runs.rundir import RunDir
execute_runs([RunDir(Path(path)) for path in sys.argv[1:]])
"""


def new_runs(config: Config, count: int, folder: Path) -> list[RunDir]:
    """`count` runs that differ in their seed, in a sweep of their own below `folder`."""
    changes = {
        "hparams": {"seed": list(range(count))},
        "metrics.log_every_steps": 1,
        **{f"paths.{name}_dir": str(folder / name) for name in ("runs", "artifacts", "logs")},
    }
    with contextlib.redirect_stdout(io.StringIO()):
        return open_sweep(grid_request(make_config(config.to_dict(), "the benchmark", changes)), fresh=True)[0].runs()


def execute(runs: list[RunDir], at_once: int) -> float:
    """Execute the runs in a new task, `at_once` at a time, with one thread each. Returns seconds since 1970 at its
    start.
    """
    began = time.time()
    env = {**os.environ, "RELAY_RUNS_PER_SLICE": str(at_once), "RELAY_CPUS": "1", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", TASK, *(str(run.path) for run in runs)]
    ended = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    assert all(run.is_done() for run in runs), ended.stderr
    return began


def images_per_s(runs: list[RunDir]) -> float:
    """Training images per second of all runs together, from the start of the first attempt to the end of the last."""
    attempts = [run.attempts()[0] for run in runs]
    seconds = max(a.end for a in attempts) - min(a.start for a in attempts)
    return sum(a.last_step * config_of(run).train.batch_size for a, run in zip(attempts, runs, strict=True)) / seconds


def measure(config: Config, at_once: int, pairs: int, folder: Path) -> dict[str, dict[str, list[float]]]:
    """images/s and seconds to the first step of each side, `pairs` times in turn."""
    sides = {"one after another": 1, "at once": at_once}
    speed: dict[str, list[float]] = {name: [] for name in sides}
    start: dict[str, list[float]] = {"first run": [], "second run": []}
    for pair in range(pairs):
        # Each side comes first as often as the other.
        for name in sorted(sides, reverse=bool(pair % 2)):
            runs = new_runs(config, at_once, folder)
            began = execute(runs, sides[name])
            speed[name].append(images_per_s(runs))
            if sides[name] == 1:
                start["first run"].append(runs[0].metrics()[0]["time"] - began)
                start["second run"].append(runs[1].metrics()[0]["time"] - runs[0].attempts()[0].end)
    return {"images_per_s": speed, "start_s": start}


def show(title: str, found: dict[str, list[float]], unit: str, base: str) -> dict[str, float]:
    """Print each side; returns its ratio to `base`."""
    medians = {name: statistics.median(values) for name, values in found.items()}
    for name, values in found.items():
        spread = f"from {min(values):.2f} to {max(values):.2f}"
        print(f"{title:10}{name:20}{medians[name]:10.2f} {unit:10}{spread:26}{medians[name] / medians[base]:6.2f}x")
    return {name: value / medians[base] for name, value in medians.items()}


def device_name() -> str:
    """The GPU, or the CPU cores. torch is not asked: that would be a CUDA context beside those of the runs."""
    if shutil.which("nvidia-smi"):
        asked = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
        return subprocess.run(asked, capture_output=True, text=True, check=False).stdout.strip()
    return f"{len(os.sched_getaffinity(0))} CPU cores"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config")
    parser.add_argument("--set", action="append", default=[], dest="overrides", metavar="KEY.PATH=VALUE")
    parser.add_argument("--at-once", type=int, default=2)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder, path = Path(name), Path(asked.config or Path(name, "small.yaml"))
        if not asked.config:
            train: dict[str, Any] = {**SMALL["train"], "epochs": 30, "device": "auto"}
            dataset = {**SMALL["dataset"], "root": str(folder / "data")}
            path.write_text(yaml_file.dump_yaml({**SMALL, "dataset": dataset, "train": train}))
        config = load_config(str(path), asked.overrides)
        # The images are made and the file cache is filled before anything is timed.
        execute(new_runs(config, 2, folder), 1)
        found = measure(config, max(2, asked.at_once), asked.pairs, folder)
    print(f"{device_name()}, {asked.at_once} runs of {config.train.epochs} epochs, {asked.pairs} pairs")
    ratios = {
        **show("at once", found["images_per_s"], "images/s", "one after another"),
        **show("warm", found["start_s"], "s", "first run"),
    }
    if asked.json:
        facts = {"device": device_name(), "at_once": asked.at_once, "pairs": asked.pairs, "ratios": ratios}
        asked.json.write_text(json.dumps({**facts, **found}, indent=1))


if __name__ == "__main__":
    main()
