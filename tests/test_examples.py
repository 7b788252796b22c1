"""The examples run, and `verify` calls them exact."""

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
