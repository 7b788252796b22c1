"""Compares an interrupted and resumed training with an uninterrupted one on this machine's device.

    python -m tests.benchmarks.resume_on_device --config configs/config.yaml --steps 300 \
        --set dataset.name=/path/to/tiny-imagenet

Prints one JSON object: the device, images/s of the uninterrupted run, the step of the interruption, and whether both
ended with equal weights, optimizer state, random states and metrics, bit for bit. Exit code 1 if they did not.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile

import torch

from relay.progress import PlainReporter
from relay.runs.rundir import RunDir
from relay.runs.sweeps import open_sweep
from src.config.loading import load_config
from src.requests import train_request
from src.training.trainer import train
from tests.conftest import differences, final_state


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", default="configs/config.yaml")
    parser.add_argument("--set", action="append", default=[], dest="overrides", metavar="KEY.PATH=VALUE")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--stop-at", type=int, help="default: 0.45 of the steps")
    asked = parser.parse_args()
    stop_at = asked.stop_at or int(asked.steps * 0.45)
    with tempfile.TemporaryDirectory() as folder:
        straight, resumed = (
            _new_run(
                asked.config, [*asked.overrides, f"train.max_steps={asked.steps}", f"paths.runs_dir={folder}/{name}"]
            )
            for name in ("straight", "resumed")
        )
        train(straight, lambda: False, PlainReporter())
        questions = iter(range(asked.steps + 1))
        train(resumed, lambda: next(questions) >= stop_at, PlainReporter())
        train(resumed, lambda: False, PlainReporter())
        differing = differences(final_state(straight), final_state(resumed))
        result = straight.result() or {}
    device = torch.cuda.get_device_name() if result["device"].startswith("cuda") else result["device"]
    shown = {
        "device": device,
        "torch": torch.__version__,
        "images_per_s": result["images_per_s"],
        "steps": result["steps"],
    }
    print(json.dumps({**shown, "stopped_at": stop_at, "equal": not differing, "differing": differing[:5]}))
    return 1 if differing else 0


def _new_run(config: str, overrides: list[str]) -> RunDir:
    return open_sweep(train_request(load_config(config, overrides)), fresh=True)[0].runs()[0]


if __name__ == "__main__":
    sys.exit(main())
