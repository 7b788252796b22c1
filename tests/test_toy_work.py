"""A new kind of work is one record: registered by the tests, it runs like all others, without the image experiment."""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from relay.config import yaml_file
from relay.program.states import list_states
from relay.runs.rundir import RunDir, SweepDir
from relay.runs.sweeps import sweeps
from tests.conftest import ROOT

TOY = ROOT / "tests" / "toy"


def environment(**more: str) -> dict[str, str]:
    """That of a process which has the toy work, and no image experiment."""
    path = os.pathsep.join([str(TOY), str(ROOT)])
    return {**os.environ, "PYTHONPATH": path, "TOY_WITHOUT_SRC": "1", "COLUMNS": "200", **more}


def write_experiment(folder: Path, **changes: Any) -> Path:
    paths = {f"{name}_dir": str(folder / name) for name in ("runs", "artifacts", "logs")}
    content = {"counts": [10, 20, 30], "tick_s": 0.001, "memory_ends_at": None, "paths": paths, **changes}
    (folder / "count.yaml").write_text(yaml_file.dump_yaml(content))
    return folder / "count.yaml"


def call(*words: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", *words],
        cwd=ROOT,
        env=env or environment(),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.fixture
def experiment(tmp_path: Path) -> Callable[..., list[str]]:
    """Writes the experiment and returns its option for commands."""
    return lambda **changes: ["--config", str(write_experiment(tmp_path, **changes))]


def rows_of(sweep: SweepDir) -> list[dict[str, str]]:
    return list(csv.DictReader(sweep.table_file("csv").read_text().splitlines()))


def test_it_runs_from_its_command_to_its_table_without_the_image_experiment(
    experiment: Callable[..., list[str]], tmp_path: Path
) -> None:
    assert call("src.train", "--help").returncode != 0, "there is no image experiment here"
    done = call("hpc.launch", "count", *experiment(), "--cluster", "local")
    assert done.returncode == 0, done.stderr
    assert "counted: to=10, to=20, to=30" in done.stdout
    (sweep,) = sweeps(tmp_path / "runs")
    assert [(row["run"], row["state"], row["to"], row["val/count"]) for row in rows_of(sweep)] == [
        ("to=30", "done", "30", "30"),
        ("to=20", "done", "20", "20"),
        ("to=10", "done", "10", "10"),
    ]
    assert "3 runs: 3 done" in call("hpc.launch", "status", *experiment()).stdout
    assert "step 20/20" in call("hpc.launch", "logs", "to=20", *experiment()).stdout
    assert "counted: to=10" in call("hpc.aggregate", *experiment()).stdout
    again = call("hpc.launch", "count", *experiment(), "--cluster", "local")
    assert "done before, on profile local" in again.stdout
    twice = call("hpc.launch", "count", "--twice", *experiment(), "--cluster", "local", "--dry-run")
    assert "to=60" in twice.stdout
    assert "forecast: " in twice.stdout
    assert "no measurement" not in twice.stdout


def wait_for_state(folder: Path, name: str) -> RunDir:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        for sweep in sweeps(folder) if folder.is_dir() else []:
            run = sweep.run(name)
            if list_states(run.checkpoints):
                return run
        time.sleep(0.05)
    pytest.fail(f"{name} did not begin")


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGUSR2])
def test_a_run_that_is_killed_or_warned_goes_on_where_it_was(
    experiment: Callable[..., list[str]], tmp_path: Path, number: signal.Signals
) -> None:
    command = [sys.executable, "-m", "hpc.launch", "count", *experiment(counts=[60], tick_s=0.02), "--cluster", "local"]
    with subprocess.Popen(command, cwd=ROOT, env=environment(), stderr=subprocess.PIPE, text=True) as process:
        run = wait_for_state(tmp_path / "runs", "to=60")
        os.kill(int(run.attempts()[-1].pid or 0), number)
        _, errors = process.communicate(timeout=90)
    assert process.returncode == 0, errors
    causes = ["TIMEOUT" if number == signal.SIGUSR2 else "KILLED", "DONE"]
    assert [attempt.cause for attempt in run.attempts()] == causes
    assert (run.attempts()[1].first_step or 0) > 0
    assert [row["step"] for row in run.metrics()] == list(range(1, 61))


def test_a_cancel_and_a_retry(experiment: Callable[..., list[str]], tmp_path: Path) -> None:
    given = experiment(counts=[400], tick_s=0.05)
    command = [sys.executable, "-m", "hpc.launch", "count", *given, "--cluster", "local"]
    with subprocess.Popen(command, cwd=ROOT, env=environment(), stderr=subprocess.PIPE, text=True) as process:
        run = wait_for_state(tmp_path / "runs", "to=400")
        assert "1 run outside of the queue" in call("hpc.launch", "cancel", "count", *given).stdout
        process.communicate(timeout=60)
    assert [attempt.cause for attempt in run.attempts()] == ["CANCELLED"]
    out_of_memory = experiment(counts=[20], memory_ends_at=5)
    failed = call("hpc.launch", "count", *out_of_memory, "--cluster", "local")
    assert failed.returncode == 2
    assert "OUT_OF_MEMORY" in failed.stderr
    retried = call("hpc.launch", "retry", "--failed", *out_of_memory)
    assert "budgets reset for 1 failed run" in retried.stdout
    assert [attempt.cause for attempt in sweeps(tmp_path / "runs")[-1].runs()[0].attempts()] == ["OUT_OF_MEMORY"] * 2
