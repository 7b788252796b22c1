"""Measures Relay against the conventional way, side by side, and writes the table into docs/performance.md.

    python -m tests.benchmarks.bench [--only NAME] [--config FILE] [--set KEY=VALUE] [--pairs 5] [--json FILE] [--write]

The images are generated unless `--set dataset.name=...` gives others. `--write` replaces the table of this device.
"""

from __future__ import annotations

import argparse
import itertools
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import nn
from torch.utils.data import DataLoader

from src.config.loading import load_config
from src.config.schema import Config
from src.data.dataset import ImageData, load
from src.models.registry import build_model
from src.training.device import choose_device
from src.training.learner import Learner
from src.training.metrics import evaluate_split, evaluation_batch
from tests.benchmarks import programs, starting
from tests.benchmarks.own import own_rows
from tests.benchmarks.table import Row, as_markdown, machine, write_into
from tests.benchmarks.training_speed import (
    PlainImages,
    Work,
    endless,
    fed_sides,
    measure,
    step_sides,
    whole_sides,
)

DOCUMENT = Path("docs/performance.md")
# Enough images for every benchmark, made in seconds.
GENERATED = (
    "dataset.name=synthetic",
    "dataset.synthetic_train_per_class=20",
    "dataset.split.val=200",
    "dataset.split.test=0",
)
_SECONDS = 1.0


class Bench:
    """The benchmarks of one configuration on one device; each method returns rows of the table."""

    def __init__(self, file: str, config: Config, pairs: int) -> None:
        self.file, self.config, self.pairs = file, config, pairs
        self.device = choose_device(config.train.device)
        self.data: ImageData = load(config)
        self.on_gpu = self.device.type == "cuda"

    def _rates(self, sides: dict[str, Work], ours: str, theirs: str) -> tuple[list[float], list[float]]:
        """images/s of both sides, in turn."""
        found = measure({name: sides[name] for name in (ours, theirs)}, self.device, self.pairs, _SECONDS)
        return found[ours], found[theirs]

    def step(self) -> Iterator[Row]:
        """Optimizer steps on one batch in memory. A batch of 256 takes a minute on two CPU cores."""
        for batch in (32, 64, 256) if self.on_gpu else (32,):
            sides = step_sides(self.config, self.data, self.device, batch, compiled=self.config.train.compile)
            ours = [name for name in sides if name != "plain"][-1]
            rates = self._rates(sides, ours, "plain")
            target = "" if self.on_gpu else "1.5"
            yield Row(f"training step, batch {batch}, {ours}", "plain NCHW step", "images/s", *rates, target)

    def whole(self) -> Iterator[Row]:
        """Training from encoded images."""
        rates = self._rates(whole_sides(self.config, self.data, self.device, 2), "ours", "plain")
        yield Row(
            "training, end to end",
            "plain program, 2 workers",
            "images/s",
            *rates,
            "10 (4 on a slice)" if self.on_gpu else "1.5",
        )

    def input(self) -> Iterator[Row]:
        """Batches of the input pipeline alone."""
        geometry = self.config.augment.model_copy(update={"color_jitter": None})
        cases = {
            "flip, crop, jitter": (self.config, "5"),
            "flip and crop": (self.config.model_copy(update={"augment": geometry}), "40"),
        }
        for name, (config, target) in cases.items():
            learner = Learner(config, self.data.train)
            plain = endless(
                DataLoader(
                    PlainImages(config, self.data, 4000),
                    config.train.batch_size,
                    shuffle=True,
                    num_workers=2,
                    persistent_workers=True,
                )
            )
            numbers = itertools.count()

            def ours(learner: Learner = learner, numbers: Iterator[int] = numbers) -> int:
                return len(learner.loader.get(*divmod(next(numbers), learner.loader.per_epoch))[1])

            def theirs(plain: Iterator[tuple[torch.Tensor, torch.Tensor]] = plain) -> int:
                return len(next(plain)[1].to(self.device))

            rates = self._rates({"ours": ours, "plain": theirs}, "ours", "plain")
            yield Row(f"input: {name}", "DataLoader, 2 workers", "images/s", *rates, target)

    def fed(self) -> Iterator[Row]:
        """What the input costs a training."""
        rates = self._rates(fed_sides(self.config, self.data), "our pipeline", "held in memory")
        yield Row("steps fed by the pipeline", "the same batches in memory", "images/s", *rates, "0.97")

    def evaluation(self) -> Iterator[Row]:
        """Evaluation of a split, and a plain loop over encoded images."""
        learner = Learner(self.config, self.data.train)
        part = self.data.val
        plain_network = build_model(self.config.model).to(self.device).eval()
        images = PlainImages(self.config, self.data, len(part), augmented=False)

        def ours() -> int:
            evaluate_split(learner.network, part, self.config, self.device, lambda: False, learner.forward)
            return len(part)

        def theirs() -> int:
            return plain_evaluation(plain_network, images, self.device)

        rates = self._rates({"ours": ours, "plain": theirs}, "ours", "plain")
        yield Row("evaluation", "plain evaluation, 2 workers", "images/s", *rates, "4" if self.on_gpu else "1.5")

    def memory(self) -> Iterator[Row]:
        """Memory of an evaluation on a CPU, where glibc keeps what is freed."""
        if not self.on_gpu:
            command = [sys.executable, "-m", "tests.benchmarks.evaluation_memory", "--config", self.file]
            said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            training, evaluation = (float(number) for number in re.findall(r"(\d+) MB", said))
            sides = [evaluation], [training]
            yield Row("peak memory of an evaluation of 8,000 images", "training steps", "MB", *sides, "1.1")

    def checkpoint(self) -> Iterator[Row]:
        """The exact state, saved and restored, as a share of an epoch of 100,000 images at the measured speed."""
        yield from starting.checkpoint_rows(self.config, self.data, self.pairs)

    def start(self) -> Iterator[Row]:
        """How runs start, and two of them at once."""
        yield from starting.start_rows(self.pairs)

    def program(self) -> Iterator[Row]:
        """What Relay adds to a user's own function."""
        yield from programs.program_rows(self.pairs)

    def own(self) -> Iterator[Row]:
        """What a user's network and images cost."""
        yield from own_rows(self.config, self.device, self.pairs)

    def foreign(self) -> Iterator[Row]:
        """Scalars of TensorBoard logs."""
        yield from starting.foreign_rows(self.pairs)

    def scale(self) -> Iterator[Row]:
        """10,000 cells on a login node."""
        yield from starting.scale_rows(self.pairs)


def plain_evaluation(network: nn.Module, images: PlainImages, device: torch.device) -> int:
    """The number of images that a plain loop has evaluated."""
    correct = torch.zeros((), device=device)
    with torch.no_grad():
        for batch, labels in DataLoader(images, evaluation_batch(device), num_workers=2):
            correct += (network(batch.to(device)).argmax(1) == labels.to(device)).sum()
    correct.item()
    return len(images)


NAMES = (
    *("step", "whole", "input", "fed", "evaluation", "memory", "checkpoint", "start", "program", "own", "foreign"),
    "scale",
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", default="configs/config.yaml")
    parser.add_argument("--set", action="append", default=[], dest="overrides", metavar="KEY.PATH=VALUE")
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--only", action="append", choices=NAMES)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--write", action="store_true", help=f"put the table into {DOCUMENT}")
    asked = parser.parse_args()
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as folder:
        overrides = [f"dataset.root={folder}", *GENERATED, *asked.overrides]
        bench = Bench(asked.config, load_config(asked.config, overrides), asked.pairs)
        for name in asked.only or NAMES:
            for row in getattr(bench, name)():
                rows.append(row)
                print(f"| {' | '.join(row.cells())} |", flush=True)
    command = " ".join(["python -m tests.benchmarks.bench", *sys.argv[1:]])
    text = as_markdown(rows, f"{machine(bench.device)}; medians of {asked.pairs} pairs.", command)
    if asked.json:
        asked.json.write_text(json.dumps([row.to_dict() for row in rows], indent=1))
    if asked.write:
        write_into(DOCUMENT, bench.device.type, text)


if __name__ == "__main__":
    main()
