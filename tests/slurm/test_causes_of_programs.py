"""Each cause of an end on a real SLURM, for a training of images and for a user's function: the same row of the table,
and the run ends as one that nothing disturbed.
"""

from __future__ import annotations

import functools
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from relay.config import yaml_file
from relay.runs.rundir import RunDir
from relay.runs.sweeps import sweeps
from tests.conftest import differences, final_state, run_python, small_config
from tests.programs import write_project
from tests.slurm.conftest import PROFILE, Cluster, on_profile, wait_for

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(300)]

Strike = Callable[[Cluster, RunDir, list[str]], None]


def job_of(run: RunDir) -> str:
    return str(run.attempts()[-1].job)


def limit(cluster: Cluster, run: RunDir, given: list[str]) -> None:
    job = job_of(run)
    cluster.run(["scontrol", "update", f"jobid={job}", "timelimit=1"])
    wait_for("the task is requeued", lambda: cluster.job(job)["JobState"] == "PENDING", 120)
    cluster.run(["scontrol", "update", f"jobid={job}", "timelimit=10"])


def preempt(cluster: Cluster, run: RunDir, given: list[str]) -> None:
    node = cluster.job(job_of(run))["NodeList"]
    every_slice = ["--gres=gpu:1g.12gb:7", "--time=1", "--mem=100"]
    cluster.submit("sleep 1", "--partition=urgent", f"--nodelist={node}", *every_slice)


def requeue(cluster: Cluster, run: RunDir, given: list[str]) -> None:
    cluster.run(["scontrol", "requeue", job_of(run)])


def warn(cluster: Cluster, run: RunDir, given: list[str]) -> None:
    cluster.run(["scancel", "--signal=USR2", job_of(run)])


def lose_node(cluster: Cluster, run: RunDir, given: list[str]) -> None:
    node = cluster.job(job_of(run))["NodeList"]
    cluster.run(["scontrol", "update", f"nodename={node}", "state=down", "reason=test"])
    wait_for("its task ends", lambda: run.attempts()[-1].ended, 60)
    # A node that comes back at once still ends the step of the job that left it. It may be back by itself.
    time.sleep(5)
    resume = ["scontrol", "update", f"nodename={node}", "state=resume"]
    subprocess.run(resume, env=cluster.env, capture_output=True, check=False)


def kill(cluster: Cluster, run: RunDir, given: list[str]) -> None:
    os.kill(int(run.attempts()[-1].pid or 0), signal.SIGKILL)


def cancel(cluster: Cluster, run: RunDir, given: list[str]) -> None:
    done = run_python("hpc.launch", "cancel", run.label, *given, env=cluster.env)
    assert done.returncode == 0, done.stderr


# Cause -> what happens, and whether the run goes on without its user.
STRIKES: dict[str, tuple[Strike, bool]] = {
    "TIMEOUT": (limit, True),
    "PREEMPTED": (preempt, True),
    "REQUEUED": (requeue, True),
    "SIGNALLED": (warn, True),
    "NODE_FAIL": (lose_node, True),
    "KILLED": (kill, False),
    "CANCELLED": (cancel, False),
}


WORKS = ("image", "function")


def experiment_of(work: str, folder: Path, *, seconds: int, pause_s: float = 0.05) -> list[str]:
    """The option for commands that names the experiment of a work, whose run takes about so long."""
    folder.mkdir(exist_ok=True)
    if work == "function":
        params = {"steps": seconds * 20, "pause_s": pause_s}
        return ["--config", str(write_project(folder, params=params, checkpoint={"every_minutes": 0.02}))]
    path = folder / "small.yaml"
    changes = {"train__epochs": seconds * 15, "checkpoint__every_minutes": 0.02, "augment__color_jitter": None}
    path.write_text(yaml_file.dump_yaml(small_config(folder / "data", folder, **changes).to_dict()))
    return ["--config", str(path)]


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, int], RunDir]:
    """The run of a work that nothing has disturbed. It is only looked at."""

    @functools.cache
    def reference(work: str, seconds: int) -> RunDir:
        folder = tmp_path_factory.mktemp(work) / "mine"
        # How long a function pauses changes no result.
        given = experiment_of(work, folder, seconds=seconds, pause_s=0)
        done = run_python("hpc.launch", "train", "--here", *given, env={"SLURM_CPUS_PER_TASK": "1"})
        assert done.returncode == 0, done.stderr
        return sweeps(folder / "runs")[0].runs()[0]

    return reference


@pytest.mark.parametrize("cause", STRIKES)
@pytest.mark.parametrize("work", WORKS)
def test_a_run_ends_as_one_that_nothing_disturbed(
    one_machine: Cluster, straight: Callable[[str, int], RunDir], tmp_path: Path, work: str, cause: str
) -> None:
    strike, goes_on = STRIKES[cause]
    profile = tmp_path / "site.yaml"
    profile.write_text(yaml_file.dump_yaml(PROFILE))
    # The warning of a limit of one minute comes after 30 s.
    seconds = 50 if cause == "TIMEOUT" else 10
    given = experiment_of(work, tmp_path / "mine", seconds=seconds)

    def launch() -> None:
        done = run_python("hpc.launch", *on_profile(profile, "train", *given), env=one_machine.env)
        assert done.returncode == 0, done.stderr

    launch()
    run = sweeps(tmp_path / "mine" / "runs")[0].runs()[0]
    wait_for("the run has saved", lambda: len(list(run.checkpoints.glob("step_*.ckpt"))) > 1, 60)
    job = job_of(run)
    strike(one_machine, run, given)
    wait_for("the attempt ends", lambda: run.attempts()[-1].ended or not run.alive(), 120)
    if goes_on:
        wait_for("the task waits again", lambda: one_machine.job(job)["JobState"] in ("PENDING", "RUNNING"), 60)
        if one_machine.job(job)["JobState"] == "PENDING":
            one_machine.skip_wait(job)
    else:
        wait_for("the queue is empty", lambda: not one_machine.run(["squeue", "--noheader"]).strip(), 60)
        launch()
    wait_for("the run is done", run.is_done, 120)
    wait_for("the queue is empty", lambda: not one_machine.run(["squeue", "--noheader"]).strip(), 60)
    assert [attempt.cause for attempt in run.attempts()] == [cause, "DONE"]
    assert (run.attempts()[1].first_step or 0) > 0
    expected, found = final_state(straight(work, seconds)), final_state(run)
    if work == "function":
        # Its pauses, which change no result, are parameters.
        del expected["state"]["key"], found["state"]["key"]
    assert differences(expected, found) == []
