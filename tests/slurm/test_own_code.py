"""A user's network, optimizer and data on a real SLURM: requeued, edited meanwhile, the results as without."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from relay.config import yaml_file
from relay.files import read_lines
from relay.runs.sweeps import sweeps
from tests.conftest import assert_same_run, run_python
from tests.own_code.conftest import OPTIMIZERS
from tests.slurm.conftest import PROFILE, Cluster, wait_for

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(600)]

PROJECT = {
    "nets.py": """
import random, time
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, classes: int, shape: tuple[int, ...], width: int = 8):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(shape[0], width), nn.BatchNorm1d(width), nn.ReLU(), nn.Dropout(0.2))
        self.head = nn.Linear(width, classes)

    def forward(self, x):
        time.sleep(0.05)
        return self.head(self.layers(x)) * (1 + 0.1 * random.random())
""",
    "opts.py": OPTIMIZERS,
    "rows.py": """
import numpy as np

def load(split):
    table = np.loadtxt("data/table.csv", delimiter=",")
    return table[:, :-1], table[:, -1].astype(int)
""",
}
EXPERIMENT = {
    "project": {"links": ["data"]},
    "dataset": {"name": "rows:load", "split": {"valid": None, "val": 0.2, "test": 0.1}},
    "preprocess": {"normalize": "auto"},
    "model": {"type": "nets:Net"},
    "train": {"batch_size": 8, "device": "cpu", "optimizer": {"name": "opts:Sign", "lr": 0.01}},
    "hparams": {"epochs": 10, "width": [4, 8]},
}


@pytest.fixture
def project(tmp_path: Path) -> Path:
    folder = tmp_path / "project"
    (folder / "data").mkdir(parents=True)
    for name, text in PROJECT.items():
        (folder / name).write_text(text)
    rows = [[n, n * n % 11, n % 5 - 2, n % 3] for n in range(120)]
    (folder / "data" / "table.csv").write_text("\n".join(",".join(map(str, row)) for row in rows))
    paths = {f"{name}_dir": str(tmp_path / name) for name in ("runs", "artifacts", "logs")}
    content = {**EXPERIMENT, "paths": paths}
    content["dataset"] = {**EXPERIMENT["dataset"], "root": str(tmp_path / "cache")}
    (folder / "relay.yaml").write_text(yaml_file.dump_yaml(content))
    (tmp_path / "profile.yaml").write_text(yaml_file.dump_yaml({**PROFILE, "max_parallel": 2}))
    return folder


def test_what_was_planned_is_trained(one_machine: Cluster, project: Path, tmp_path: Path) -> None:
    config = ["--config", str(project / "relay.yaml")]
    undisturbed = ["--set", f"paths.runs_dir={tmp_path / 'reference'}"]
    done = run_python("src.grid_search", *config, *undisturbed, env={**os.environ, "SLURM_CPUS_PER_TASK": "1"})
    assert done.returncode == 0, done.stderr
    submit = ["hpc.launch", "grid", "--cluster", str(tmp_path / "profile.yaml"), *config]
    submitted = run_python(*submit, env=one_machine.env)
    assert submitted.returncode == 0, submitted.stderr
    for name in PROJECT:
        (project / name).write_text("raise RuntimeError('edited')\n")
    sweep = sweeps(tmp_path / "runs")[-1]
    first, second = sweep.runs()
    wait_for("rows of the first cell", lambda: first.metrics_file.exists() and len(first.metrics()) > 2, 120)
    job = first.attempts()[-1].job
    assert job is not None
    one_machine.run(["scontrol", "requeue", job])
    one_machine.wait_until(job, "PENDING", 60)
    one_machine.skip_wait(job)
    wait_for("the grid", lambda: first.is_done() and second.is_done(), 300)
    assert [attempt.cause for attempt in first.attempts()] == ["REQUEUED", "DONE"]
    for run, other in zip(sweep.runs(), sweeps(tmp_path / "reference")[-1].runs(), strict=True):
        assert_same_run(run, other)
    projects = {line["project"] for line in read_lines(first.provenance_file)}
    assert projects == {sweep.meta()["project"]}
