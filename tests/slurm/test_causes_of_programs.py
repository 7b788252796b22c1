"""Each cause of an end on a real SLURM, for a training of images and for a user's function: the same row of the table,
and the run ends as one that nothing disturbed.
"""

from __future__ import annotations

import functools
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from hpc.processes import descendants
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


def block_the_checkpoints(cluster: Cluster, run: RunDir, given: list[str]) -> None:
    """The next save fails."""
    away = run.path / "away"
    run.checkpoints.rename(away)
    run.checkpoints.write_text("")
    wait_for("the attempt ends", lambda: run.attempts()[-1].ended, 60)
    run.checkpoints.unlink()
    away.rename(run.checkpoints)


# Takes memory in the cgroup whose list of processes is its first argument, until the process of its second argument
# is gone. It is the last one that the kernel would kill.
EATER = """
import os, sys, time
procs, victim = sys.argv[1:]
open("/proc/self/oom_score_adj", "w").write("-1000")
open(procs, "w").write(str(os.getpid()))
taken = []
while open(f"/proc/{victim}/statm").read(2) != "0 ":
    taken.append(b"x" * 2**22)
"""


def use_up_memory(cluster: Cluster, run: RunDir, given: list[str]) -> None:
    """Let the kernel kill what computes, as if it had grown above the memory of its job."""
    if not (cluster.scratch / "cgroup.conf").is_file():
        pytest.skip("no cgroups can be made here")
    pid = int(run.attempts()[-1].pid or 0)
    groups = dict(line.split(":", 2)[1:] for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines())
    folder = f"memory{groups['memory']}" if "memory" in groups else groups[""].lstrip("/")
    victim = max(descendants([pid]), default=pid)
    Path(f"/proc/{victim}/oom_score_adj").write_text("1000")
    eater = [sys.executable, "-c", EATER, f"/sys/fs/cgroup/{folder}/cgroup.procs", str(victim)]
    subprocess.run(eater, stderr=subprocess.DEVNULL, timeout=60, check=False)


# Cause -> what happens, and the command that lets the run go on; None if none is needed.
STRIKES: dict[str, tuple[Strike, str | None]] = {
    "TIMEOUT": (limit, None),
    "PREEMPTED": (preempt, None),
    "REQUEUED": (requeue, None),
    "SIGNALLED": (warn, None),
    "NODE_FAIL": (lose_node, None),
    "KILLED": (kill, "train"),
    "CANCELLED": (cancel, "train"),
    "CRASHED": (block_the_checkpoints, "retry"),
    "OUT_OF_MEMORY": (use_up_memory, "retry"),
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
    strike, command = STRIKES[cause]
    profile = tmp_path / "site.yaml"
    profile.write_text(yaml_file.dump_yaml(PROFILE))
    # The warning of a limit of one minute comes after 30 s.
    seconds = 50 if cause == "TIMEOUT" else 10
    given = experiment_of(work, tmp_path / "mine", seconds=seconds)

    def launch(*words: str) -> None:
        done = run_python("hpc.launch", *on_profile(profile, *words, *given), env=one_machine.env)
        assert done.returncode == 0, done.stderr

    launch("train")
    run = sweeps(tmp_path / "mine" / "runs")[0].runs()[0]
    wait_for("the run has saved", lambda: len(list(run.checkpoints.glob("step_*.ckpt"))) > 1, 60)
    job = job_of(run)
    strike(one_machine, run, given)
    wait_for("the attempt ends", lambda: run.attempts()[-1].ended or not run.alive(), 120)
    if command is None:
        wait_for("the task waits again", lambda: one_machine.job(job)["JobState"] in ("PENDING", "RUNNING"), 60)
        if one_machine.job(job)["JobState"] == "PENDING":
            one_machine.skip_wait(job)
    else:
        wait_for("the queue is empty", lambda: not one_machine.run(["squeue", "--noheader"]).strip(), 60)
        # Which comes a moment later, on a busy machine. Until then, it is not known why a process was killed.
        sacct = ["sacct", "-nX", "-j", job, "-o", "end"]
        wait_for("accounting has the end", lambda: "Unknown" not in one_machine.run(sacct), 30)
        launch(command, *(["--failed"] if command == "retry" else []))
    wait_for("the run is done", run.is_done, 120)
    wait_for("the queue is empty", lambda: not one_machine.run(["squeue", "--noheader"]).strip(), 60)
    assert [attempt.cause for attempt in run.attempts()] == [cause, "DONE"]
    assert (run.attempts()[1].first_step or 0) > 0
    expected, found = final_state(straight(work, seconds)), final_state(run)
    if work == "function":
        # Its pauses, which change no result, are parameters.
        del expected["state"]["key"], found["state"]["key"]
    assert differences(expected, found) == []


def test_programs_share_tasks_and_slices(
    one_machine: Cluster, straight: Callable[[str, int], RunDir], tmp_path: Path
) -> None:
    """Four runs in one task, two at a time: two are stopped with it, one is killed, and all end as ever."""
    profile = tmp_path / "site.yaml"
    profile.write_text(yaml_file.dump_yaml({**PROFILE, "cpus": 2, "cells_per_job": 4, "runs_per_slice": 2}))
    given = experiment_of("function", tmp_path / "mine", seconds=10)
    given += ["--set", "hparams={seed: [0, 1, 2, 3]}"]
    launched = run_python("hpc.launch", *on_profile(profile, "grid", *given), env=one_machine.env)
    assert "up to 4 runs in each" in launched.stdout, launched.stderr
    runs = sweeps(tmp_path / "mine" / "runs")[0].runs()
    wait_for("two have saved", lambda: sum(len(list(run.checkpoints.glob("step_*"))) > 1 for run in runs) == 2, 60)
    assert [len(run.attempts()) for run in runs] == [1, 1, 0, 0]
    pids = [int(run.attempts()[0].pid or 0) for run in runs[:2]]
    assert len(set(pids)) == 2
    assert not any("torch" in Path(f"/proc/{pid}/maps").read_text() for pid in pids), "a supervisor imports no torch"
    job = job_of(runs[0])
    one_machine.run(["scancel", "--signal=USR2", job])
    wait_for("the task waits again", lambda: one_machine.job(job)["JobState"] == "PENDING", 60)
    assert [[attempt.cause for attempt in run.attempts()] for run in runs] == [["SIGNALLED"], ["SIGNALLED"], [], []]
    one_machine.skip_wait(job)
    wait_for("the first goes on", lambda: bool(runs[0].attempts()[1:] and runs[0].attempts()[1].first_step), 60)
    for child in descendants([int(runs[0].attempts()[1].pid or 0)]):
        os.kill(child, signal.SIGKILL)
    wait_for("the queue is empty", lambda: not one_machine.run(["squeue", "--noheader"]).strip(), 120)
    assert [attempt.cause for attempt in runs[0].attempts()] == ["SIGNALLED", "KILLED"]
    assert all(run.is_done() for run in runs[1:])
    launched = run_python("hpc.launch", *on_profile(profile, "grid", *given), env=one_machine.env)
    assert "3 done, 0 in the queue before, 1 submitted" in launched.stdout, launched.stderr
    wait_for("the run is done", runs[0].is_done, 120)
    wait_for("the queue is empty", lambda: not one_machine.run(["squeue", "--noheader"]).strip(), 60)
    expected, found = final_state(straight("function", 10)), final_state(runs[0])
    # The seed and the pauses are given here and not there, or with another value; they change nothing of this run.
    del expected["state"]["key"], found["state"]["key"]
    assert differences(expected, found) == []
