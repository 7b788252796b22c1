"""Sites whose sbatch is a script before the real one, whose jobs get no environment, and setup lines that fail."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hpc.submission.submissions import submissions
from relay.config import yaml_file
from relay.runs.rundir import SweepDir
from relay.runs.sweeps import sweeps
from src.config.schema import Config
from tests.conftest import fake, run_python
from tests.slurm.conftest import PROFILE, Cluster, on_profile, wait_for

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(600)]

Launch = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def launch(one_machine: Cluster, small: Callable[..., Config], tmp_path: Path) -> Launch:
    """`launch(wrapper, WORDS, **profile)`: hpc.launch for a grid of two cells, with a script in place of sbatch.

    `$SBATCH` in it is the real one.
    """
    (tmp_path / "bin").mkdir()
    (tmp_path / "grid.yaml").write_text(
        yaml_file.dump_yaml(small(hparams={"epochs": 1, "lr": [0.001, 0.01]}).to_dict())
    )
    sbatch, path = str(shutil.which("sbatch")), f"{tmp_path / 'bin'}:{one_machine.env['PATH']}"

    def call(wrapper: str, *words: str, **profile: Any) -> subprocess.CompletedProcess[str]:
        fake(tmp_path / "bin", "sbatch", wrapper)
        (tmp_path / "profile.yaml").write_text(yaml_file.dump_yaml({**PROFILE, "max_parallel": 2, **profile}))
        given = [*on_profile(tmp_path / "profile.yaml", *words), "--config", str(tmp_path / "grid.yaml")]
        return run_python("hpc.launch", *given, env=one_machine.env | {"PATH": path, "SBATCH": sbatch})

    return call


def only_sweep(tmp_path: Path) -> SweepDir:
    (sweep,) = sweeps(tmp_path / "runs")
    return sweep


def test_a_launcher_killed_in_sbatch_leaves_an_array_that_runs_without_an_environment(
    launch: Launch, tmp_path: Path
) -> None:
    odd = {"sbatch": {"export": "NONE"}, "setup": ["export PYTHONPATH=SITE PYTHONHOME=/nowhere", "cd /"]}
    killed = launch('"$SBATCH" "$@"; kill -9 $PPID; sleep 1', "grid", **odd)
    assert killed.returncode == -9
    sweep = only_sweep(tmp_path)
    assert submissions(sweep)[0].job_id is None
    wait_for("both runs are done", lambda: all(run.is_done() for run in sweep.runs()), 90)
    assert [[attempt.cause for attempt in run.attempts()] for run in sweep.runs()] == [["DONE"], ["DONE"]]
    assert "done before" in launch('"$SBATCH" "$@"', "grid").stdout


def test_a_wrapper_that_talks_and_a_setup_line_that_fails(launch: Launch, tmp_path: Path, one_machine: Cluster) -> None:
    wrapper = "echo '--> Verifying job 1 of 1 ...OK'; echo; \"$SBATCH\" \"$@\" | tr -d '[:alpha:] '"
    started = launch(
        wrapper, "grid", setup=["module() { false; return 0; }", "module load cuda", "conda activate relay"]
    )
    assert started.returncode == 0, started.stderr
    sweep = only_sweep(tmp_path)
    job = str(submissions(sweep)[0].job_id)
    wait_for("the tasks have failed", lambda: one_machine.job(f"{job}_1")["JobState"] == "FAILED", 60)
    wait_for("the tasks have failed", lambda: one_machine.job(f"{job}_0")["JobState"] == "FAILED", 60)
    shown = launch(wrapper, "status").stdout
    assert "error: setup: conda activate relay: failed with exit code 127" in shown
    assert [run.attempts() for run in sweep.runs()] == [(), ()]
    again = launch(wrapper, "grid", setup=["conda activate relay"], ignore_setup_errors=True)
    assert "2 submitted" in again.stdout, again.stderr
    wait_for("both runs are done", lambda: all(run.is_done() for run in sweep.runs()), 90)
