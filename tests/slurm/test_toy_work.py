"""A new kind of work on a real SLURM: several runs in a task, two at a time, through a kill, a cancel and no memory."""

from __future__ import annotations

import csv
import os
import signal
from pathlib import Path

import pytest

from relay.config import yaml_file
from relay.runs.rundir import RunDir
from relay.runs.sweeps import sweeps
from tests.slurm.conftest import PROFILE, Cluster, on_profile, wait_for
from tests.test_toy_work import call, environment, write_experiment

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(300)]


def causes(run: RunDir) -> list[str | None]:
    return [attempt.cause for attempt in run.attempts()]


def test_runs_of_a_new_work_are_brought_to_their_end(one_machine: Cluster, tmp_path: Path) -> None:
    profile = tmp_path / "site.yaml"
    profile.write_text(yaml_file.dump_yaml({**PROFILE, "cells_per_job": 3, "runs_per_slice": 2, "max_parallel": 2}))
    config = write_experiment(tmp_path, counts=[150, 151, 20, 25, 152], tick_s=0.1, memory_ends_at=151)
    env = environment(SLURM_CONF=str(one_machine.conf))

    def launch(*words: str) -> str:
        done = call("hpc.launch", *on_profile(profile, *words), "--config", str(config), env=env)
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert "one array of 2 tasks, at most 2 at a time, up to 3 runs in each" in launch("count")
    (sweep,) = sweeps(tmp_path / "runs")
    killed, cancelled, short, other, forgetful = sweep.runs()
    for run in (killed, cancelled):
        wait_for(f"{run.name} counts", lambda run=run: len(run.metrics()) > 5, 60)
    os.kill(int(killed.attempts()[-1].pid or 0), signal.SIGKILL)
    assert "1 run of a task" in launch("cancel", cancelled.label)
    wait_for("the queue is empty", lambda: not one_machine.run(["squeue", "--noheader"]).strip(), 120)
    assert causes(killed) == ["KILLED"]
    assert causes(cancelled) == ["CANCELLED"]
    assert causes(forgetful) == ["OUT_OF_MEMORY"]
    assert causes(short) == causes(other) == ["DONE"]
    status = launch("status")
    assert "5 runs: 1 cancelled, 2 done, 1 killed, 1 out_of_memory" in status
    assert "step 20/20" in launch("logs", short.label)

    # The same command starts again what was killed and cancelled, and not what has no memory.
    assert "2 done, 0 in the queue before, 2 submitted" in launch("count")
    wait_for("the queue is empty", lambda: not one_machine.run(["squeue", "--noheader"]).strip(), 120)
    assert causes(killed) == ["KILLED", "DONE"]
    assert causes(cancelled) == ["CANCELLED", "DONE"]
    for run in (killed, cancelled):
        assert (run.attempts()[1].first_step or 0) > 4
        assert [row["step"] for row in run.metrics()] == list(range(1, len(run.metrics()) + 1))
    assert "budgets reset for 1 failed run" in launch("retry", "--failed")
    wait_for("the queue is empty", lambda: not one_machine.run(["squeue", "--noheader"]).strip(), 60)
    assert causes(forgetful) == ["OUT_OF_MEMORY", "OUT_OF_MEMORY"]
    assert forgetful.attempts()[1].first_step == 151
    done = call("hpc.aggregate", "--config", str(config), env=env)
    assert "counted: to=150, to=151, to=20, to=25" in done.stdout, done.stderr
    states = {row["run"]: row["state"] for row in csv.DictReader(sweep.table_file("csv").read_text().splitlines())}
    assert states.pop(forgetful.name) == "out_of_memory"
    assert set(states.values()) == {"done"}
