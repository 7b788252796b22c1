"""The examples run, and `verify` calls those of functions exact."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from relay.runs.sweeps import sweeps
from tests.conftest import ROOT
from tests.fork_server import fork_python

SHORT = {"char_lm": "params.steps=60", "tabular": "params.epochs=3"}


@pytest.fixture
def example(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """The configuration of a copy of an example."""
    folder = tmp_path / str(request.param)
    shutil.copytree(ROOT / "examples" / folder.name, folder, ignore=shutil.ignore_patterns("__pycache__"))
    return folder / "relay.yaml"


@pytest.mark.parametrize("example", SHORT, indirect=True)
def test_an_example_runs_and_is_exact(example: Path) -> None:
    folder = example.parent
    where = ["--config", str(example), "--cluster", "local", "--set", f"paths.runs_dir={folder / 'runs'}"]
    where += ["--set", f"paths.artifacts_dir={folder / 'artifacts'}", "--set", f"paths.logs_dir={folder / 'logs'}"]
    done = fork_python("hpc.launch", "train", *where, "--set", SHORT[folder.name])
    assert done.returncode == 0, done.stdout + done.stderr
    (run,) = sweeps(folder / "runs")[0].runs()
    columns = json.loads(run.result_file.read_text())["columns"]
    assert 0 < columns["val/loss"] < 3.5
    assert run.best_file.is_file()
    proved = fork_python("hpc.launch", "verify", *where, "--steps", "12", env={"TMPDIR": str(folder.parent)})
    assert proved.returncode == 0, proved.stdout + proved.stderr
    assert "exact: this run may be interrupted anywhere" in proved.stdout


@pytest.mark.parametrize("example", ["script"], indirect=True)
def test_a_script_runs_as_a_grid(example: Path) -> None:
    folder = example.parent
    where = ["--config", str(example), "--cluster", "local", "--set", f"paths.runs_dir={folder / 'runs'}"]
    where += ["--set", f"paths.artifacts_dir={folder / 'artifacts'}", "--set", f"paths.logs_dir={folder / 'logs'}"]
    short = ["--set", "params={steps: 60, eval-every: 20}", "--set", "hparams={lr: [1e-3, 1e-2], width: [8]}"]
    done = fork_python("hpc.launch", "grid", *where, *short)
    assert done.returncode == 0, done.stdout + done.stderr
    runs = sweeps(folder / "runs")[0].runs()
    assert len(runs) == 2
    for run in runs:
        assert [row["step"] for row in run.metrics()] == list(range(1, 61))
        columns = json.loads(run.result_file.read_text())["columns"]
        assert (columns["steps"], 0 < columns["val_loss"] < 2.3) == (60, True)
        assert [path.name for path in sorted((run.work / "out").glob("*.pt"))] == ["step-000050.pt", "step-000060.pt"]


@pytest.mark.parametrize("name", ["script", "huggingface", "lightning"])
def test_a_script_of_the_examples_knows_nothing_of_relay(name: str) -> None:
    folder = ROOT / "examples" / name
    (script,) = folder.glob("*.py")
    assert "relay" not in script.read_text().lower()
    assert "relay grid" in (folder / "README.md").read_text()
    if (folder / "requirements.txt").exists():
        # With the torch of Relay's own environment, whose files uv then only links.
        locked = (ROOT / "requirements.lock").read_text().split()
        pinned = (folder / "requirements.txt").read_text().split()
        assert all("==" in line for line in pinned)
        assert next(line for line in pinned if line.startswith("torch==")) in locked
