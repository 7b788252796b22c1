"""A grid on a real SLURM: an array under a cap, a time limit and a preemption on the way, the results as without."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from relay.config import yaml_file
from relay.program.states import newest_step
from relay.runs.rundir import RunDir, SweepDir
from relay.runs.sweeps import sweeps
from src.config.loading import config_of
from tests.conftest import ROOT, assert_same_run, run_python
from tests.slurm.conftest import PROFILE, Cluster, on_profile, wait_for

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(900)]

IMAGES = ROOT.parent / "shared" / "data" / "tiny-imagenet"
CAP = 2
LONG = 11
EXPERIMENT: dict[str, Any] = {
    "dataset": {"name": str(IMAGES), "classes": 20, "train_per_class": 60, "split": {"val": 400, "test": 200}},
    "preprocess": {"resize": [32, 32]},
    "augment": {
        "random_flip": True,
        "random_crop": {"size": 32, "padding": 4},
        "color_jitter": {"brightness": 0.1, "contrast": 0.1, "saturation": 0.1, "hue": 0.02},
    },
    "model": {"num_classes": 20, "input_shape": [3, 32, 32], "branch_channels": [16, 16, 16], "stem_channels": 16},
    # Two cells long enough for a time limit to strike, two short ones.
    "hparams": {"lr": [0.001, 0.003], "train.epochs": [LONG, 1], "num_modules": [2], "tag": "real_grid"},
}


@dataclass
class Watch:
    """What was seen in the queue while the grid went on."""

    most_running: int = 0
    preempted: str = ""
    limited: str = ""
    states: set[str] = field(default_factory=set)


@pytest.fixture(scope="module")
def experiment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The experiment's file: real images where they are, else images made here in the same number and size."""
    folder = tmp_path_factory.mktemp("grid")
    content = {**EXPERIMENT, "paths": {f"{name}_dir": str(folder / name) for name in ("runs", "artifacts", "logs")}}
    content["dataset"] = {**EXPERIMENT["dataset"], "root": str(folder / "data")}
    if not IMAGES.is_dir():
        content["dataset"] |= {"name": "synthetic", "synthetic_train_per_class": 60, "synthetic_valid_per_class": 50}
    path = folder / "grid.yaml"
    path.write_text(yaml_file.dump_yaml(content))
    (folder / "profile.yaml").write_text(yaml_file.dump_yaml({**PROFILE, "max_parallel": CAP}))
    return path


def launch(cluster: Cluster, experiment: Path, *words: str) -> subprocess.CompletedProcess[str]:
    given = [*on_profile(experiment.parent / "profile.yaml", *words), "--config", str(experiment)]
    return run_python("hpc.launch", *given, env=cluster.env)


def newest_sweep(experiment: Path) -> SweepDir:
    return sweeps(experiment.parent / "runs")[-1]


@pytest.fixture(scope="module")
def reference(experiment: Path, one_machine: Cluster) -> Iterator[subprocess.Popen[str]]:
    """The same grid in the foreground, never interrupted, in another runs directory."""
    prepared = run_python("src.checks", "--config", str(experiment))
    assert prepared.returncode == 0, prepared.stderr
    command = [
        sys.executable,
        "-m",
        "src.grid_search",
        "--config",
        str(experiment),
        "--set",
        f"paths.runs_dir={experiment.parent / 'reference'}",
    ]
    env = {**one_machine.env, "SLURM_CPUS_PER_TASK": "1", "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        command, cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        yield process
        process.kill()


@pytest.fixture(scope="module")
def finished(one_machine: Cluster, experiment: Path, reference: subprocess.Popen[str]) -> tuple[SweepDir, Watch]:
    """The grid, submitted, preempted once, and followed to its end."""
    submitted = launch(one_machine, experiment, "grid")
    assert submitted.returncode == 0, submitted.stderr
    assert "submitted 4 runs" in submitted.stdout
    sweep, watch = newest_sweep(experiment), Watch()
    deadline = time.monotonic() + 600
    while any(run.result() is None for run in sweep.runs()):
        assert time.monotonic() < deadline, launch(one_machine, experiment, "status").stdout
        rows = [
            line.split("|")
            for line in one_machine.run(["squeue", "-h", "-r", "-p", "gpu", "-o", "%i|%T|%r|%N"]).splitlines()
        ]
        running = [row for row in rows if row[1] == "RUNNING"]
        watch.most_running = max(watch.most_running, len(running))
        watch.states |= {row[1] for row in rows}
        _strike(one_machine, sweep, running, watch)
        if watch.limited and any(row[0] == watch.limited and row[1] == "PENDING" for row in rows):
            one_machine.run(["scontrol", "update", f"jobid={watch.limited}", "timelimit=10"])
        time.sleep(1)
    return sweep, watch


def _strike(cluster: Cluster, sweep: SweepDir, running: list[list[str]], watch: Watch) -> None:
    """Shorten the time limit of one task on its way; once that has struck, ask for all of another's node from above."""
    long = [run for run in sweep.runs() if config_of(run).train.epochs == LONG]
    by_job = {run.attempts()[-1].job: run for run in long if run.attempts()}
    working = [row for row in running if row[0] in by_job and _steps_logged(by_job[row[0]]) >= 3]
    struck = any(a.cause == "TIMEOUT" for run in sweep.runs() for a in run.attempts())
    for job_id, _, _, node in working:
        if not watch.limited:
            cluster.run(["scontrol", "update", f"jobid={job_id}", "timelimit=1"])
            watch.limited = job_id
        elif struck and not watch.preempted:
            cluster.submit(
                "sleep 2", "--partition=urgent", f"--nodelist={node}", "--gres=gpu:1g.12gb:7", "--time=1", "--mem=100"
            )
            watch.preempted = job_id


def _steps_logged(run: RunDir) -> int:
    return len(run.metrics_file.read_text().splitlines()) if run.metrics_file.exists() else 0


def test_every_cell_is_done_once_and_stands_in_the_table(
    finished: tuple[SweepDir, Watch], one_machine: Cluster, experiment: Path
) -> None:
    sweep, _ = finished
    answer = run_python("hpc.aggregate", "--config", str(experiment))
    assert answer.returncode == 0, answer.stderr
    table = sweep.table_file("md").read_text()
    print(table)
    assert len(table.splitlines()) == 2 + 4
    for run in sweep.runs():
        assert re.search(rf"\| {re.escape(run.name)} +\| done ", table)
        assert [a.cause for a in run.attempts()].count("DONE") == 1
    assert (experiment.parent / "artifacts" / f"{sweep.name}_curves.png").is_file()


def test_the_array_kept_under_its_cap(finished: tuple[SweepDir, Watch]) -> None:
    sweep, watch = finished
    assert watch.most_running == CAP
    assert watch.states <= {"PENDING", "RUNNING", "COMPLETING", "CONFIGURING", "REQUEUED"}
    assert len({a.job.partition("_")[0] for run in sweep.runs() for a in run.attempts()}) == 1


def test_time_limit_and_preemption_struck_and_were_told_apart(finished: tuple[SweepDir, Watch]) -> None:
    sweep, watch = finished
    assert watch.preempted
    assert watch.limited
    causes = [a.cause for run in sweep.runs() for a in run.attempts()]
    assert causes.count("TIMEOUT") == 1
    # All tasks that shared the node had to go, one or both.
    assert 1 <= causes.count("PREEMPTED") <= CAP
    assert set(causes) == {"TIMEOUT", "PREEMPTED", "DONE"}
    for run in sweep.runs():
        steps = [(a.first_step, a.last_step) for a in run.attempts()]
        assert all(first == before for (first, _), (_, before) in zip(steps[1:], steps, strict=False)), (
            f"work was lost: {steps}"
        )


def test_the_results_are_those_of_a_grid_that_nobody_interrupted(
    finished: tuple[SweepDir, Watch], reference: subprocess.Popen[str], experiment: Path
) -> None:
    sweep, _ = finished
    output, _ = reference.communicate(timeout=600)
    assert reference.returncode == 0, output
    straight = sweeps(experiment.parent / "reference")[-1]
    assert [run.name for run in straight.runs()] == [run.name for run in sweep.runs()]
    for run in sweep.runs():
        assert len(straight.run(run.name).attempts()) == 1
        assert_same_run(straight.run(run.name), run)


def test_asking_again_submits_nothing(finished: tuple[SweepDir, Watch], one_machine: Cluster, experiment: Path) -> None:
    again = launch(one_machine, experiment, "grid")
    assert again.returncode == 0, again.stderr
    assert "4 done, 0 in the queue before, 0 submitted" in again.stdout
    assert len(sweeps(experiment.parent / "runs")) == 1


@pytest.fixture
def long_run(one_machine: Cluster, experiment: Path) -> Iterator[RunDir]:
    """A training that is on its way on a node and will not end by itself."""
    words = ["train", "--fresh", "--set", "train.epochs=5000"]
    assert launch(one_machine, experiment, *words).returncode == 0
    run = newest_sweep(experiment).runs()[0]
    deadline = time.monotonic() + 120
    while not run.metrics_file.exists() and time.monotonic() < deadline:
        time.sleep(0.5)
    yield run
    launch(one_machine, experiment, "cancel", run.path.parent.name)


def test_in_the_queue_is_left_alone_and_cancel_saves(long_run: RunDir, one_machine: Cluster, experiment: Path) -> None:
    again = launch(one_machine, experiment, "train", "--set", "train.epochs=5000")
    assert "0 done, 1 in the queue before, 0 submitted" in again.stdout
    shown = launch(one_machine, experiment, "status", long_run.path.parent.name)
    assert re.search(r"train +running", shown.stdout), shown.stdout
    cancelled = launch(one_machine, experiment, "cancel", long_run.path.parent.name)
    assert "cancelled 1 task" in cancelled.stdout
    deadline = time.monotonic() + 60
    while not long_run.attempts()[-1].ended and time.monotonic() < deadline:
        time.sleep(0.5)
    attempt = long_run.attempts()[-1]
    assert attempt.cause == "CANCELLED"
    assert attempt.last_step == newest_step(long_run.checkpoints) > 0
    job = one_machine.job(attempt.job)
    assert job["JobState"] in ("CANCELLED", "COMPLETING")
    assert "step" in launch(one_machine, experiment, "logs", long_run.label).stdout


def test_what_slurm_refuses_is_said_in_its_words(one_machine: Cluster, experiment: Path) -> None:
    profile = experiment.parent / "refused.yaml"
    profile.write_text(yaml_file.dump_yaml({**PROFILE, "max_parallel": CAP, "partition": "nowhere"}))
    words = ["train", "--fresh", "--config", str(experiment), "--cluster", str(profile)]
    refused = run_python("hpc.launch", *words, env=one_machine.env)
    assert refused.returncode == 2
    assert "sbatch: error: " in refused.stderr
    assert "nvalid partition" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_several_runs_on_one_slice_end_as_runs_alone(one_machine: Cluster, small_file: Path, tmp_path: Path) -> None:
    profile = tmp_path / "profile.yaml"
    profile.write_text(yaml_file.dump_yaml({**PROFILE, "cpus": 2, "cells_per_job": 4, "runs_per_slice": 2}))
    given = ["--config", str(small_file), "--set", "hparams.epochs=40"]
    submitted = run_python("hpc.launch", *on_profile(profile, "grid"), *given, env=one_machine.env)
    assert "submitted 4 runs" in submitted.stdout, submitted.stderr
    (sweep,) = sweeps(tmp_path / "runs")
    runs = sweep.runs()
    wait_for("two runs train at once", lambda: sum(_steps_logged(run) > 1 for run in runs) == 2, 120)
    (job_id,) = {run.attempts()[0].job for run in runs if run.attempts()}
    assert len({run.attempts()[0].pid for run in runs if run.attempts()}) == 2
    one_machine.run(["scancel", "--signal=USR2", job_id])
    wait_for("both are saved, and the task waits", lambda: one_machine.job(job_id)["JobState"] == "PENDING", 60)
    assert [[a.cause for a in run.attempts()] for run in runs] == [["SIGNALLED"], ["SIGNALLED"], [], []]
    assert all(run.attempts()[0].last_step > 0 for run in runs[:2])
    one_machine.skip_wait(job_id)
    straight = [*given, "--set", f"paths.runs_dir={tmp_path / 'straight'}"]
    # One thread for each run: half of the two CPUs of the task.
    alone = run_python("src.grid_search", *straight, env={**one_machine.env, "OMP_NUM_THREADS": "1"})
    assert alone.returncode == 0, alone.stderr
    wait_for("all runs are done", lambda: all(run.is_done() for run in runs), 240)
    assert [len(run.attempts()) for run in runs] == [2, 2, 1, 1]
    for run, other in zip(runs, sweeps(tmp_path / "straight")[-1].runs(), strict=True):
        assert_same_run(run, other)
    wait_for("the task has ended", lambda: one_machine.job(job_id)["JobState"] == "COMPLETED", 60)
