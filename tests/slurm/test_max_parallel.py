"""max_parallel holds for all arrays of a sweep together, and a launch right after a cancel needs no second call."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hpc.submission.submissions import submissions
from relay.config import yaml_file
from relay.runs.sweeps import sweeps
from src.config.schema import Config
from tests.conftest import run_python
from tests.slurm.conftest import PROFILE, Cluster, on_profile, wait_for

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(400)]

# Of a task that is cancelled: it is COMPLETING for so long.
SLOW_END = "trap 'sleep 15' TERM"
Launch = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def launch(one_machine: Cluster, small: Callable[..., Config], tmp_path: Path) -> Iterator[Launch]:
    """`python -m hpc.launch WORDS` for a grid of three long cells, one at a time; all of it is cancelled in the end."""
    config = small(hparams={"epochs": 4000, "lr": [0.001, 0.002, 0.003]}, checkpoint__every_steps=60)
    (tmp_path / "long.yaml").write_text(yaml_file.dump_yaml(config.to_dict()))
    (tmp_path / "profile.yaml").write_text(yaml_file.dump_yaml(PROFILE | {"max_parallel": 1, "setup": [SLOW_END]}))

    def call(*words: str) -> subprocess.CompletedProcess[str]:
        given = [*on_profile(tmp_path / "profile.yaml", *words), "--config", str(tmp_path / "long.yaml")]
        done = run_python("hpc.launch", *given, env=one_machine.env)
        assert done.returncode == 0, done.stderr
        return done

    yield call
    call("cancel", "all")


def test_a_sweep_continued_while_its_array_is_in_flight(launch: Launch, one_machine: Cluster, tmp_path: Path) -> None:
    launch("grid")
    (sweep,) = sweeps(tmp_path / "runs")
    first, second, third = sweep.runs()

    def queue() -> dict[str, str]:
        lines = one_machine.run(["squeue", "-h", "-r", "-p", "gpu", "-o", "%i %T %r"]).splitlines()
        return {line.split()[0]: line.partition(" ")[2] for line in lines}

    def job() -> str:
        return str(submissions(sweep)[-1].job_id)

    array = job()
    wait_for("the first cell works", lambda: first.metrics_file.exists(), 90)
    assert f"{second.label}\n" in launch("cancel", second.label).stdout
    (shown,) = [line for line in launch("status").stdout.splitlines() if line.startswith(second.name)]
    assert "cancelled" in shown
    again = launch("grid").stdout
    assert "2 in the queue before, 1 submitted" in again
    assert f"it starts when job {array} is over" in again
    second_job = job()
    assert queue()[second_job] == "PENDING Dependency"

    launch("cancel", first.label)
    assert "COMPLETING" in queue()[f"{array}_0"]
    again = launch("grid").stdout
    assert f"waiting until tasks have saved and ended: {array}_0\n" in again
    assert "2 in the queue before, 1 submitted" in again
    first_job = job()
    wait_for("the third cell works", lambda: third.metrics_file.exists(), 90)
    assert {name: state for name, state in queue().items() if state.startswith("PENDING")} == {
        second_job: "PENDING Dependency",
        first_job: "PENDING Dependency",
    }
    launch("cancel", third.label)
    wait_for("the second cell works", lambda: second.metrics_file.exists(), 90)
    assert queue() == {second_job: "RUNNING None", first_job: "PENDING Dependency"}


def test_more_cells_run_once_the_profile_allows_more(launch: Launch, tmp_path: Path) -> None:
    launch("grid")
    (sweep,) = sweeps(tmp_path / "runs")
    first, second, third = sweep.runs()
    wait_for("the first cell works", lambda: first.metrics_file.exists(), 90)
    shown = launch("status").stdout
    assert "a place in its array (max_parallel)" in shown
    assert "progress of what is done, queued or running: " in shown
    (tmp_path / "profile.yaml").write_text(yaml_file.dump_yaml(PROFILE | {"max_parallel": 2, "setup": [SLOW_END]}))
    job = submissions(sweep)[-1].job_id
    assert f"job {job}: at most 2 of its tasks at a time from now on" in launch("grid").stdout
    wait_for("the second cell works beside it", lambda: second.metrics_file.exists(), 90)
    assert not third.attempts()
    assert "at a time from now on" not in launch("grid").stdout
