"""Commands of users on a real SLURM, with both ways of tracking processes: five scripts behind other processes, each
stopped by the warning, by SIGTERM, by a cancel and by a time limit, and left by a supervisor that is killed.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from hpc.one_machine import cgroups
from hpc.processes import command_line, pids
from relay.config import yaml_file
from relay.runs.rundir import RunDir
from relay.runs.sweeps import sweeps
from relay.scripts.checkpoints import number_in
from tests.conftest import run_python
from tests.scripts import RESTART, TRAIN, write_script
from tests.slurm.conftest import PROFILE, Cluster, cluster_of_its_own, on_profile, wait_for

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(900)]

# The words of the script, behind what stands before it. `behind_bash` has a process of bash above it, `session` and
# `timeout` one of theirs.
START = """
how=$1
shift
case $how in
    alone) exec python train.py "$@";;
    session) exec setsid --wait python train.py "$@";;
    env) exec env FOO=1 python train.py "$@";;
    timeout) exec timeout 3000 python train.py "$@";;
    bash) python train.py "$@"; code=$?; exit $code;;
esac
"""
HOW = ["alone", "session", "env", "timeout", "bash"]
STEPS = 1100
PAUSE_S = 0.1


class Watcher(threading.Thread):
    """Looks all the time for two processes that execute the script of one run."""

    def __init__(self, folder: Path) -> None:
        super().__init__(daemon=True)
        self._folder, self._ended = folder, threading.Event()
        self.seen: dict[str, int] = {}
        self.twice: set[str] = set()

    def run(self) -> None:
        while not self._ended.wait(0.2):
            works: dict[str, list[int]] = {}
            for pid in pids():
                words = command_line(pid)
                if words[1:2] == ["train.py"] and "python" in words[0]:
                    works.setdefault(_folder_of(pid), []).append(pid)
            for work, found in works.items():
                if Path(work).is_relative_to(self._folder):
                    self.seen[work] = self.seen.get(work, 0) + 1
                    # One may have ended, and the next begun, since the first was looked at.
                    if len(found) > 1 and all(_folder_of(pid) == work for pid in found):
                        self.twice.add(work)

    def end(self) -> None:
        self._ended.set()
        self.join()


def _folder_of(pid: int) -> str:
    try:
        return os.readlink(f"/proc/{pid}/cwd")  # noqa: PTH115
    except OSError:
        return ""


@contextmanager
def watching(folder: Path) -> Iterator[Watcher]:
    watcher = Watcher(folder)
    watcher.start()
    try:
        yield watcher
    finally:
        watcher.end()


@pytest.fixture(params=["linuxproc", "cgroup"])
def cluster(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    if request.param == "linuxproc":
        yield request.getfixturevalue("one_machine")
        return
    if reason := cgroups.why_not("freezer"):
        pytest.skip(reason)
    with cluster_of_its_own(f"cgroup_{os.getpid()}", "--proctrack", "cgroup") as own:
        yield own


def steps_of(run: RunDir) -> list[int]:
    file = run.work / "steps"
    return [int(line) for line in file.read_text().split()] if file.exists() else []


def test_five_ways_to_start_a_script_and_five_ways_to_end_it(cluster: Cluster, tmp_path: Path) -> None:
    file = write_script(
        tmp_path / "mine",
        TRAIN,
        program={
            "command": f"bash start.sh {{how}} --steps {STEPS} --pause {PAUSE_S} --save-every 50",
            "restart": RESTART,
            "python": sys.executable,
        },
        hparams={"how": HOW},
    )
    (file.parent / "start.sh").write_text(START)
    profile = tmp_path / "site.yaml"
    profile.write_text(yaml_file.dump_yaml({**PROFILE, "max_parallel": len(HOW)}))

    def launch(*words: str) -> None:
        done = run_python("hpc.launch", *on_profile(profile, *words, "--config", str(file)), env=cluster.env)
        assert done.returncode == 0, done.stderr

    def attempts_have(count: int) -> bool:
        return all(len(run.attempts()) == count and run.attempts()[-1].ended for run in runs)

    def go_on_after(count: int) -> None:
        """Wait until all run again, and have made some steps."""
        before = {run: len(steps_of(run)) for run in runs}
        wait_for(
            f"attempt {count} runs", lambda: all(len(steps_of(run)) > before[run] + 20 for run in runs), timeout_s=120
        )

    def jobs() -> list[str]:
        return [str(run.attempts()[-1].job) for run in runs]

    def skip_waits() -> None:
        for job in jobs():
            wait_for(f"{job} waits again", lambda job=job: cluster.job(job)["JobState"] == "PENDING", 60)
            cluster.skip_wait(job)

    with watching(file.parent) as watcher:
        launch("grid")
        runs = sweeps(file.parent / "runs")[0].runs()
        go_on_after(1)
        for count, name in ((1, "USR2"), (2, "TERM")):
            for job in jobs():
                cluster.run(["scancel", f"--signal={name}", job])
            wait_for(f"all are stopped by {name}", lambda count=count: attempts_have(count), 60)
            skip_waits()
            go_on_after(count + 1)
        launch("cancel", "all")
        wait_for("all are cancelled", lambda: attempts_have(3), 90)
        wait_for("the queue is empty", lambda: not cluster.run(["squeue", "--noheader"]).strip(), 60)
        launch("grid")
        go_on_after(4)
        for job in jobs():
            cluster.run(["scontrol", "update", f"jobid={job}", "timelimit=1"])
        wait_for("all are stopped by the limit", lambda: attempts_have(4), 150)
        for job in jobs():
            wait_for(f"{job} waits again", lambda job=job: cluster.job(job)["JobState"] == "PENDING", 60)
            cluster.run(["scontrol", "update", f"jobid={job}", "timelimit=10"])
        # Until here each attempt begins where the one before has saved at its stop: no step is made twice.
        assert [steps_of(run) == list(range(1, len(steps_of(run)) + 1)) for run in runs] == [True] * 5
        skip_waits()
        go_on_after(5)
        for run in runs:
            os.kill(int(run.attempts()[-1].pid or 0), signal.SIGKILL)
        time.sleep(3)
        launch("grid")
        wait_for("all are done", lambda: all(run.is_done() for run in runs), 240)
        wait_for("the queue is empty", lambda: not cluster.run(["squeue", "--noheader"]).strip(), 60)
    causes = ["SIGNALLED", "SIGNALLED", "CANCELLED", "TIMEOUT", "KILLED", "DONE"]
    assert {run.name: [attempt.cause for attempt in run.attempts()] for run in runs} == {
        run.name: causes for run in runs
    }
    for run in runs:
        made = steps_of(run)
        again = next((place for place in range(1, len(made)) if made[place] <= made[place - 1]), len(made))
        repeated = made[again:]
        # Only those after the newest checkpoint, and nothing is left out.
        assert repeated == list(range(repeated[0], STEPS + 1)) if repeated else made[-1] == STEPS
        saved = [number_in(path.name) for path in (run.work / "out").glob("ckpt-*.json")]
        assert not repeated or repeated[0] - 1 == max(step for step in saved if step <= made[again - 1])
        assert [row["step"] for row in run.metrics()] == list(range(1, STEPS + 1))
    assert watcher.twice == set()
    assert len(watcher.seen) == len(runs)
    assert min(watcher.seen.values()) > 50
