"""Scripts of the frameworks as a grid of four on a real SLURM. Each run is struck in another way, all are completed.

Not even the folder of a script is made for the test: it is that of the example.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import pytest

from hpc.processes import start_ticks
from relay.config import yaml_file
from relay.runs.rundir import RunDir
from relay.runs.sweeps import sweeps
from tests.conftest import ROOT, run_python
from tests.frameworks.kinds import KINDS, SAVE, TOTAL, Kind
from tests.frameworks.watcher import Watcher, continue_once_told, pid_of
from tests.slurm.conftest import PROFILE, Cluster, on_profile, wait_for

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(600)]


@dataclass
class Struck:
    """One run of the grid. `resumes`: where each attempt has to begin. `counts`: how many steps were logged before.
    `pid`: its script, while that is stopped.
    """

    run: RunDir
    kind: Kind
    resumes: list[int] = field(default_factory=lambda: [0])
    counts: list[int] = field(default_factory=lambda: [0])
    pid: int = 0

    @property
    def job(self) -> str:
        return str(self.run.attempts()[-1].job)

    def script(self) -> int | None:
        """The process that executes the script."""
        return pid_of(self.run.work.absolute(), self.kind.script)

    def has_stopped_in_mid_training(self) -> bool:
        """Stop the script after two checkpoints of this attempt, between others."""
        attempts = self.run.attempts()[len(self.resumes) - 1 :]
        assert not (attempts and attempts[-1].ended), attempts[-1]
        logged = self.kind.logged(self.run.work)
        newest = max(self.kind.checkpoints(self.run.work), default=0)
        if len(logged) == self.counts[-1] or newest < self.resumes[-1] + 2 * SAVE or logged[-1][0] < newest + 3:
            return False
        self.pid = self.script() or 0
        assert self.pid, f"{self.run.label} is not executed"
        os.kill(self.pid, signal.SIGSTOP)
        assert self.kind.logged(self.run.work)[-1][0] < TOTAL, "it was too fast to be struck"
        return True

    def wait_for_end(self, timeout_s: float) -> None:
        """Wait until the attempt has ended, and note where the next one has to begin."""
        wait_for(f"{self.run.label} ends", lambda: self.run.attempts()[-1].ended, timeout_s)
        assert self.script() is None
        self.note_newest()

    def note_newest(self) -> None:
        assert len(self.run.attempts()) == len(self.resumes)
        self.resumes.append(max(self.kind.checkpoints(self.run.work)))
        self.counts.append(len(self.kind.logged(self.run.work)))

    def tear_newest(self) -> None:
        """Cut the newest checkpoint off, as a full disk or a lost node leaves it."""
        step, newest = self.kind.checkpoints(self.run.work).popitem()
        assert step == self.resumes[-1]
        file = newest / self.kind.torn
        os.truncate(file, file.stat().st_size // 2)
        self.resumes[-1] = max(self.kind.checkpoints(self.run.work))
        assert self.resumes[-1] == step - SAVE


def stop_in_mid_training(*struck: Struck) -> None:
    left = list(struck)

    def all_have() -> bool:
        left[:] = [each for each in left if not each.has_stopped_in_mid_training()]
        return not left

    wait_for("all have saved twice", all_have, 120)


def goes_on(cluster: Cluster, struck: Struck) -> None:
    """Let the requeued task of a run start again, and wait until the run is done."""
    job = struck.job
    wait_for("the task waits again", lambda: cluster.job(job)["JobState"] == "PENDING", 60)
    cluster.run(["scontrol", "update", f"jobid={job}", f"timelimit={PROFILE['time_min']}"])
    cluster.skip_wait(job)
    wait_for(f"{struck.run.label} is done", struck.run.is_done, 180)


def limit(cluster: Cluster, struck: Struck, launch: Callable[[], str]) -> None:
    """A time limit."""
    cluster.run(["scontrol", "update", f"jobid={struck.job}", "timelimit=1"])
    continue_once_told(struck.pid, 90)
    struck.wait_for_end(60)
    goes_on(cluster, struck)


def kill_twice(cluster: Cluster, struck: Struck, launch: Callable[[], str]) -> None:
    """With -9, the script and then its supervisor. What that has started goes with it, or keeps the run locked."""

    def launch_again() -> None:
        job = struck.job
        wait_for("its job is gone", lambda: cluster.job(job)["JobState"] not in ("RUNNING", "COMPLETING"), 30)
        assert "1 submitted" in launch()

    os.kill(struck.pid, signal.SIGKILL)
    struck.wait_for_end(30)
    launch_again()
    stop_in_mid_training(struck)
    # Stopped, it would get SIGHUP from the kernel once its supervisor is gone.
    os.kill(struck.pid, signal.SIGCONT)
    os.kill(int(struck.run.attempts()[-1].pid or 0), signal.SIGKILL)
    wait_for("its script is gone", lambda: start_ticks(struck.pid) is None, 2)
    # The workers of its loader live for up to 5 s without it, and keep the run locked.
    wait_for("all of it is gone", lambda: struck.script() is None, 15)
    struck.note_newest()
    launch_again()
    wait_for(f"{struck.run.label} is done", struck.run.is_done, 180)


def warn_while_stopped(cluster: Cluster, struck: Struck, launch: Callable[[], str]) -> None:
    """The script does not answer, whatever it is told; its newest checkpoint is torn besides."""
    cluster.run(["scancel", "--signal=USR2", struck.job])
    struck.wait_for_end(60)
    struck.tear_newest()
    goes_on(cluster, struck)


def preempt(cluster: Cluster, struck: Struck, launch: Callable[[], str]) -> None:
    """By a job that needs the whole node."""
    node = cluster.job(struck.job)["NodeList"]
    every_slice = ["--gres=gpu:1g.12gb:7", "--time=1", "--mem=100"]
    cluster.submit("sleep 1", "--partition=urgent", f"--nodelist={node}", *every_slice)
    continue_once_told(struck.pid, 60)
    struck.wait_for_end(60)
    goes_on(cluster, struck)


# The run with these numbers of workers and this seed -> what happens to it, and the causes of its ends.
STRIKES = {
    (2, 0): (limit, ["TIMEOUT", "DONE"]),
    (2, 1): (kill_twice, ["KILLED", "KILLED", "DONE"]),
    (0, 0): (warn_while_stopped, ["SIGNALLED", "DONE"]),
    # After the others, because it takes all from the node.
    (0, 1): (preempt, ["PREEMPTED", "DONE"]),
}


@pytest.mark.parametrize("name", KINDS)
def test_every_run_of_a_grid_is_completed(slurm: Cluster, frameworks: Path, tmp_path: Path, name: str) -> None:
    kind = KINDS[name]
    folder = tmp_path / name
    shutil.copytree(ROOT / "examples" / name, folder, ignore=shutil.ignore_patterns(".venv", "__pycache__"))
    profile = tmp_path / "site.yaml"
    profile.write_text(yaml_file.dump_yaml({**PROFILE, "max_parallel": 4, "mem_gb": 4}))
    changes = {"params": kind.params, "hparams": {kind.workers: [2, 0], "seed": [0, 1]}}
    changes |= {f"paths.{each}_dir": str(folder / each) for each in ("runs", "artifacts", "logs")}
    if (folder / "requirements.txt").exists():
        changes["program.python"] = str(frameworks)
    if kind.command:
        changes["program.command"] = kind.command
    given = ["--config", str(folder / "relay.yaml")]
    given += [f"--set={key}={value if isinstance(value, str) else json.dumps(value)}" for key, value in changes.items()]

    def launch() -> str:
        done = run_python("hpc.launch", *on_profile(profile, "grid", *given), env=slurm.env)
        assert done.returncode == 0, done.stderr
        return done.stdout

    with Watcher(tmp_path, kind.script) as watcher:
        launch()
        grid = [Struck(run, kind) for run in sweeps(folder / "runs")[0].runs()]
        params = [struck.run.config()["params"] for struck in grid]
        assert [(each[kind.workers], each["seed"]) for each in params] == list(STRIKES)
        stop_in_mid_training(*grid)
        *strikes, (last, _) = STRIKES.values()
        with ThreadPoolExecutor() as pool:
            ends = [
                pool.submit(strike, slurm, struck, launch) for struck, (strike, _) in zip(grid, strikes, strict=False)
            ]
        for end in ends:
            end.result()
        last(slurm, grid[-1], launch)
        wait_for("the queue is empty", lambda: not slurm.run(["squeue", "--noheader"]).strip(), 60)

    causes = [[attempt.cause for attempt in struck.run.attempts()] for struck in grid]
    assert causes == [expected for _, expected in STRIKES.values()]
    assert watcher.together == [], "two processes of one run at one moment"
    for struck in grid:
        assert_completed(struck, watcher)


def assert_completed(struck: Struck, watcher: Watcher) -> None:
    """The script was executed once for each attempt, each began at the newest complete checkpoint, and the rows are
    those that the last one of them has logged.
    """
    run, kind = struck.run, struck.kind
    attempts = run.attempts()
    assert len(watcher.seen[run.work.absolute()]) == len(attempts)
    logged = kind.logged(run.work)
    made = [step for step, _ in logged]
    parts = [made[begin:end] for begin, end in pairwise([*struck.counts, len(made)])]
    assert [part[0] for part in parts] == [step + 1 for step in struck.resumes]
    assert all(part == list(range(part[0], part[-1] + 1)) for part in parts), "a step was left out, or made twice"
    assert made[-1] == TOTAL
    assert [attempt.first_step for attempt in attempts] == struck.resumes
    rows = {row["step"]: row for row in run.metrics()}
    assert len(rows) == len(run.metrics())
    assert list(rows) == list(range(1, TOTAL + 1))
    # Of a repeated step the last one counts.
    assert {step: row[kind.loss] for step, row in rows.items()} == pytest.approx(dict(logged), rel=1e-6)
    result = json.loads(run.result_file.read_text())
    assert result["columns"]["steps"] == TOTAL
    assert result["columns"][kind.select] == min(row[kind.select] for row in rows.values() if kind.select in row)
