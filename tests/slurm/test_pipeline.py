"""LR sweep, grid, training and evaluation as a pipeline of SLURM jobs; a cancelled stage stops the pipeline."""

from __future__ import annotations

import subprocess
import time
from collections import Counter
from pathlib import Path

import pytest

from hpc.pipeline.directory import STAGES, Pipeline, all_pipelines
from hpc.submission.submissions import submissions
from relay.config import yaml_file
from relay.runs.rundir import SweepDir
from src.config.loading import config_of
from tests.conftest import run_python
from tests.slurm.conftest import PROFILE, Cluster, on_profile, wait_for

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(600)]


def test_a_pipeline_stops_at_a_cancelled_stage_and_continues_when_launched_again(
    one_machine: Cluster, small_file: Path, tmp_path: Path
) -> None:
    profile = tmp_path / "profile.yaml"
    # begin: tasks wait in the queue for 8 s, as they do after a requeue.
    content = {**PROFILE, "max_parallel": 2, "cells_per_job": 2, "sbatch": {"begin": "now+8"}}
    profile.write_text(yaml_file.dump_yaml(content))
    given = ["--config", str(small_file), "--set", "lr_finder.num_steps=40"]

    def launch(*words: str) -> subprocess.CompletedProcess[str]:
        done = run_python("hpc.launch", *on_profile(profile, *words), *given, env=one_machine.env)
        assert done.returncode == 0, done.stderr
        return done

    def state(stage: str) -> str | None:
        record = pipeline.stage_records().get(stage)
        return record.state if record else None

    def sweep(stage: str) -> SweepDir:
        return SweepDir(tmp_path / "runs" / str(pipeline.stage_records()[stage].sweep))

    assert "lr_sweep -> grid -> train -> evaluate" in launch("pipeline").stdout
    (pipeline,) = all_pipelines(tmp_path / "runs")
    assert isinstance(pipeline, Pipeline)
    wait_for("the LR sweep is done and the grid is submitted", lambda: state("grid") == "submitted", 120)
    # An earlier TIMEOUT must not count as a stop by the user.
    for run in sweep("grid").runs():
        run.record_attempt(1, start=time.time() - 60, job="1", cluster="c")
        run.record_attempt(1, end=time.time(), cause="TIMEOUT", first_step=0, last_step=4)
    assert "cancelled 2 tasks" in launch("cancel", sweep("grid").name).stdout
    wait_for("the pipeline stops at the grid", lambda: state("grid") == "failed", 90)
    assert "cancelled or never started" in pipeline.stage_records()["grid"].reason
    assert state("train") is None
    assert len(submissions(sweep("grid"))) == 1
    assert all(run.cancelled() and len(run.attempts()) == 1 for run in sweep("grid").runs())

    launch("pipeline")
    wait_for("the pipeline is complete", lambda: state("evaluate") == "done", 300)
    assert [state(stage) for stage in STAGES] == ["done"] * 4
    suggestion = float((sweep("lr_sweep").runs()[0].result() or {})["suggestion"]["valley"])
    # The grid keeps its own rate axis; its best cell is trained and evaluated.
    cells = {cell.name: cell.overrides for cell in sweep("grid").cells()}
    assert {overrides["train.optimizer.lr"] for overrides in cells.values()} == {0.001, 0.01}
    best = str(pipeline.stage_records()["grid"].result).split()[1].rstrip(",")
    trained = config_of(sweep("train").runs()[0])
    assert trained.train.optimizer.lr == cells[best]["train.optimizer.lr"] != suggestion
    assert trained.model.num_modules == cells[best]["model.num_modules"]
    result = sweep("evaluate").runs()[0].result() or {}
    assert result["trained_by"] == sweep("train").runs()[0].label
    assert sweep("grid").table_file("md").is_file()
    # Two runs in each task, each in a process of its own.
    last = [run.attempts()[-1] for run in sweep("grid").runs()]
    assert sorted(Counter(attempt.job for attempt in last).values()) == [2, 2]
    assert len({(attempt.node, attempt.pid) for attempt in last}) == 4
