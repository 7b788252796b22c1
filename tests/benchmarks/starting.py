"""The parts of the bench that are not about images: checkpoints, starts, foreign logs, and grids of 10,000 cells."""

from __future__ import annotations

import itertools
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from torch.utils.tensorboard import SummaryWriter

from relay.program.states import load_newest, save_state
from relay.results.foreign.event_files import PATTERN
from src.config.loading import make_config
from src.config.schema import Config
from src.data.dataset import ImageData
from src.training.learner import Learner
from tests.benchmarks import scale
from tests.benchmarks.foreign import readers
from tests.benchmarks.runs_per_slice import execute, measure, new_runs
from tests.benchmarks.table import Row, in_turn, seconds
from tests.conftest import SMALL

_EPOCH_IMAGES = 100_000
_CELLS = 10_000


def checkpoint_rows(config: Config, data: ImageData, pairs: int) -> Iterator[Row]:
    """The state of a learner after a step. An epoch is taken from the time of steps in the same pairs."""
    learner = Learner(config, data.train)
    learner.step(0, 1e-3)
    state = {**learner.state_dict(), "best_weights": learner.copy_weights()}
    steps = itertools.count(1)
    with tempfile.TemporaryDirectory(dir=".") as folder:

        def save() -> float:
            return seconds(lambda: save_state(Path(folder), next(steps), state, keep=2))

        def epoch() -> float:
            taken = seconds(lambda: learner.step(next(steps) % learner.loader.per_epoch, 1e-3)[0].item())
            return taken * _EPOCH_IMAGES / config.train.batch_size

        def restore() -> float:
            def work() -> None:
                found = load_newest(Path(folder), lambda _: "", print)
                assert found is not None
                learner.load_state_dict(found)

            return seconds(work)

        found = in_turn({"save": save, "restore": restore, "epoch": epoch}, pairs)
    against = f"an epoch of {_EPOCH_IMAGES:,} images"
    yield Row("checkpoint", against, "s", found["save"], found["epoch"], "0.001")
    yield Row("state read and restored", "the same epoch", "s", found["restore"], found["epoch"], "0.001")
    sweep = [float(config.lr_finder.num_steps)] * pairs
    epoch_steps = [_EPOCH_IMAGES / config.train.batch_size] * pairs
    yield Row("LR sweep (counted)", "an epoch", "steps", sweep, epoch_steps, "reported")


def start_rows(pairs: int) -> Iterator[Row]:
    """The start of runs in a task, and two of them at once."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        dataset = {**SMALL["dataset"], "root": f"{folder}/data"}
        config = make_config({**SMALL, "dataset": dataset, "train": {**SMALL["train"], "epochs": 30}}, "the benchmark")

        def first_step() -> float:
            run = new_runs(config, 1, folder)[0]
            began = execute([run], 1)
            return float(run.metrics()[0]["time"]) - began

        def import_torch() -> float:
            return seconds(lambda: subprocess.run([sys.executable, "-c", "import torch"], check=True))

        times = in_turn({"ours": first_step, "theirs": import_torch}, pairs).values()
        yield Row("a new process to its first step, images cached", "import torch", "s", *times, "1.2")
        found = measure(config, 2, pairs, folder)
        start, speed = found["start_s"], found["images_per_s"]
        target = "0.1"
        yield Row(
            "second run of a task to its first step", "the first", "s", start["second run"], start["first run"], target
        )
        sides = speed["at once"], speed["one after another"]
        yield Row("2 runs at once, one thread each", "one after another", "images/s", *sides, "reported")


def foreign_rows(pairs: int) -> Iterator[Row]:
    """Twelve logs with five scalars of 1,000 steps, as torch writes them."""
    with tempfile.TemporaryDirectory() as folder:
        for run in range(12):
            with SummaryWriter(f"{folder}/{run}") as writer:  # type: ignore[no-untyped-call]
                for step in range(1000):
                    for tag in range(5):
                        writer.add_scalar(f"val/{tag}", step * tag, step)  # type: ignore[no-untyped-call]
        files = sorted(Path(folder).rglob(PATTERN))

        accumulate, read = readers(files)
        times = in_turn({"ours": lambda: seconds(read), "theirs": lambda: seconds(accumulate)}, pairs)
        rates = [[len(files) / taken for taken in side] for side in times.values()]
        yield Row("aggregate of foreign logs", "EventAccumulator", "files/s", *rates, "5")


def scale_rows(pairs: int) -> Iterator[Row]:
    """The commands for 10,000 cells, with fake SLURM commands, beside the same files plainly written."""
    found = [_scale() for _ in range(pairs)]
    grids, plains, statuses, looks = zip(*found, strict=True)
    yield Row("10,000 cells planned and submitted", "the same files, plainly written", "s", grids, plains, "3 s")
    yield Row("status of 10,000 cells", "looking for two files of each", "s", statuses, looks, "0.5 s")


def _scale() -> tuple[float, float, float, float]:
    """Seconds of the grid command, of writing its files plainly, of status, and of looking for two files of each."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        site = scale.FakeSite(folder)
        scale.launch(site, "grid", scale.write_grid(folder, 400, "product"))  # Makes the images.
        path = scale.write_grid(folder, _CELLS, "product")
        grid = seconds(lambda: scale.launch(site, "grid", path))
        sweep = max((folder / "runs").glob("grid_search_*"), key=lambda made: len(list(made.iterdir())))
        status = seconds(lambda: scale.launch(site, "status", path))
        plain = seconds(lambda: scale.write_plainly(sweep, folder / "plain-runs"))
        return grid, plain, status, seconds(lambda: scale.look_plainly(sweep))
