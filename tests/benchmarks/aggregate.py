"""Times `python -m hpc.aggregate` on a sweep of 10,000 finished runs, twice.

    python -m tests.benchmarks.aggregate [--cells 10000] [--images 8000] [--folder DIR]

Before the second time, 10 runs change. Prints seconds and the ratio to reading the same result.json and attempts.jsonl
with the json module, measured in the same run, because the speed of a shared machine varies. Exit code 1 if a command
fails or the same input gives other bytes.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import tempfile
from pathlib import Path

import numpy as np

from relay.runs.predictions import Predictions, encode_predictions
from relay.runs.rundir import RunDir, SweepDir
from relay.runs.seal import sealed_text
from relay.runs.sweeps import open_sweep
from src.config.loading import load_config
from src.requests import grid_request
from src.training.columns import training_columns
from tests.benchmarks.scale import FakeSite, measure, run, show, write_grid

EPOCHS = 10
CHANGED = 10
# Networks that are trained on the same images agree on most of them.
PATTERNS = 200


def finish(made: RunDir, pattern: bytes, accuracy: float, more: int = 0) -> None:
    """Write what a finished training leaves, without fsync; `more` makes another result."""
    loss = 2 * (1 - accuracy)
    best = {"accuracy": accuracy, "loss": loss, "epoch": float(EPOCHS), "step": 1000}
    facts = {"status": "done", "outcome": "completed", "best": best, "epochs": float(EPOCHS), "steps": 1000}
    facts |= {"train": {"loss": loss, "accuracy": accuracy}, "images_per_s": 600.0 + more, "train_seconds": 100.0}
    facts["columns"] = training_columns(made.config().metrics, facts)
    lines = [{"attempt": 1, "start": 1.0}, {"attempt": 1, "end": 2.0, "cause": "DONE", "first_step": 0}]
    rows = [
        {"step": 100 * epoch, "epoch": float(epoch), "time": 1.0, "val/accuracy": accuracy * epoch / EPOCHS}
        for epoch in range(1, EPOCHS + 1)
    ]
    made.attempts_file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    made.metrics_file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    made.predictions_file.write_bytes(pattern)
    made.result_file.write_text(sealed_text(facts, made.sealed_files))


def patterns(images: int) -> list[tuple[bytes, float]]:
    """The predictions of networks with accuracies from 0.1 to 0.5, and these accuracies."""
    random = np.random.default_rng(0)
    label, difficulty = random.integers(0, 200, images), random.random(images)
    made = []
    for number in range(PATTERNS):
        correct = difficulty + 0.1 * random.standard_normal(images) < 0.1 + 0.4 * number / PATTERNS
        predicted = np.where(correct, label, (label + 1) % 200)
        columns = label, predicted, random.random(images), random.random(images) * 5, correct, "images"
        made.append((encode_predictions(Predictions(*columns)), float(correct.mean())))
    return made


def read_plainly(sweep: SweepDir) -> None:
    """The yardstick: parse two files of each run."""
    for path in sweep.path.iterdir():
        if path.is_dir() and (path / "result.json").is_file():
            json.loads((path / "result.json").read_bytes())
            for line in (path / "attempts.jsonl").read_bytes().splitlines():
                json.loads(line)


def digest(sweep: SweepDir) -> str:
    """Of all files that an aggregation writes into the sweep's directory."""
    files = sorted(path for path in sweep.path.iterdir() if path.is_file() and not path.name.startswith("."))
    return hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", type=int, default=10_000, help="a multiple of 400")
    parser.add_argument("--images", type=int, default=8_000)
    parser.add_argument("--folder", type=Path, help="where to write (a folder for it is made there, and removed)")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=asked.folder) as folder:
        site, path = FakeSite(Path(folder)), write_grid(Path(folder), asked.cells, "product")
        sweep, _ = open_sweep(grid_request(load_config(path)))
        made, runs = patterns(asked.images), sweep.runs()
        for number, each in enumerate(runs):
            finish(each, *made[number % PATTERNS])
        command = ("-m", "hpc.aggregate", "--config", str(path))
        first = measure(lambda: run(site, *command))
        before = digest(sweep)
        unchanged = measure(lambda: run(site, *command))
        equal = digest(sweep) == before
        for each in runs[:CHANGED]:
            finish(each, *made[0], more=1)
        again = measure(lambda: run(site, *command))
        plain = measure(lambda: read_plainly(sweep))
        print(f"{asked.cells:,} finished runs, {asked.images:,} images each")
        show("aggregate", first, plain, "reading two files of each", "(wanted: under 10 s)")
        show("again, nothing changed", unchanged, plain, "reading two files of each", "(wanted: under 2 s)")
        show(f"again, {CHANGED} runs changed", again, plain, "reading two files of each", "(wanted: under 2 s)")
        print(f"the same input gave {'the same' if equal else 'OTHER'} bytes")
    return 0 if equal else 1


if __name__ == "__main__":
    sys.exit(main())
