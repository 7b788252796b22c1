"""Tasks whose runs are executed in forks, several at a time, with the real training and real signals."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from hpc.node import fork as forks
from hpc.recovery.diagnosis import LOCAL_JOB
from relay.runs.rundir import RunDir
from relay.runs.sweeps import open_sweep
from src.config.loading import config_of
from src.config.schema import Config
from src.requests import grid_request
from tests.conftest import assert_same_run, command_environment
from tests.fork_server import fork_server
from tests.node.waiting import pid_of, wait_until


class Running:
    """A task in a process of its own, which executes `at_once` of the runs at a time with one thread each.

    It is a fork of the tests' server, and so starts without importing torch. `before`: Python to execute first.
    """

    def __init__(self, runs: list[RunDir], at_once: int, before: str, folder: Path) -> None:
        self.runs = runs
        self._files = [folder / "stdout", folder / "stderr"]
        variables = {"RELAY_RUNS_PER_SLICE": str(at_once), "RELAY_CPUS": "1", LOCAL_JOB: "1"}
        self._server = fork_server()
        self.pid = self._server.start(
            words=["tests.node.task_of_runs", before, *(str(run.path) for run in runs)],
            files=[str(file) for file in self._files],
            environment=command_environment(variables),
            timeout_s=120,
        )
        self._code: int | None = None

    @property
    def stdout(self) -> str:
        return self._files[0].read_text()

    @property
    def stderr(self) -> str:
        return self._files[1].read_text()

    def ended(self) -> int:
        """Wait for the end; returns the exit code."""
        if self._code is None:
            self._code, _ = self._server.wait()
        return self._code

    def close(self) -> None:
        if self._code is None:
            os.kill(self.pid, signal.SIGTERM)
            self.ended()


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Running]]:
    """Start a task; its predecessor must have ended."""
    running: list[Running] = []

    def make(runs: list[RunDir], at_once: int = 2, before: str = "") -> Running:
        folder = tmp_path / f"task-{len(running)}"
        folder.mkdir()
        running.append(Running(runs, at_once, before, folder))
        return running[-1]

    yield make
    for each in running:
        each.close()


def grid(config: Config) -> list[RunDir]:
    return open_sweep(grid_request(config), fresh=True)[0].runs()


@pytest.fixture
def endless(small: Callable[..., Config]) -> list[RunDir]:
    """Four runs of which the first two take forever and the others 2 epochs."""
    axes = {"train.epochs": [2000, 2], "num_modules": [1], "lr": [0.001, 0.01]}
    return sorted(grid(small(hparams=axes)), key=lambda run: -config_of(run).train.epochs)


def causes(runs: list[RunDir]) -> list[list[Any]]:
    return [[attempt.cause for attempt in run.attempts()] for run in runs]


@pytest.mark.parametrize(
    ("number", "cause"), [(signal.SIGKILL, "KILLED"), (signal.SIGSEGV, "CRASHED"), (signal.SIGABRT, "CRASHED")]
)
def test_a_run_that_dies_leaves_the_others_to_finish(
    endless: list[RunDir], start: Callable[..., Running], number: int, cause: str
) -> None:
    runs = [endless[0], *endless[2:]]
    task = start(runs)
    pid = pid_of(runs[0])
    assert pid != task.pid
    os.kill(pid, number)
    # As soon as it died, and not only when the task ends.
    wait_until(lambda: runs[0].attempts()[-1].ended)
    assert task.ended() == 1
    assert causes(runs) == [[cause], ["DONE"], ["DONE"]]
    dead = runs[0].attempts()[0]
    assert dead.reached_step >= dead.last_step >= 0
    assert f"{runs[0].label}: its process ended with {signal.Signals(number).name}: {cause}" in task.stderr
    assert f"failed: {runs[0].label};" in task.stderr
    assert "requeued" not in task.stdout


def test_an_exit_or_a_crash_in_c_ends_only_its_own_run(
    small: Callable[..., Config], start: Callable[..., Running]
) -> None:
    runs = grid(small())
    before = f"""
import ctypes, dataclasses, jobs, os, sys
real = jobs.WORKS["grid"].execute
def execute(run, should_stop, reporter):
    if run.name == {runs[0].name!r}:
        os._exit(3)
    if run.name == {runs[1].name!r}:
        ctypes.string_at(0)
    if run.name == {runs[2].name!r}:
        sys.exit(5)
    return real(run, should_stop, reporter)
jobs.WORKS["grid"] = dataclasses.replace(jobs.WORKS["grid"], execute=execute)
"""
    task = start(runs, at_once=1, before=before)
    assert task.ended() == 1
    assert causes(runs) == [["CRASHED"], ["CRASHED"], ["CRASHED"], ["DONE"]]
    assert "exit code 3" in task.stderr
    assert "SIGSEGV" in task.stderr
    assert start(runs, at_once=2).ended() == 1
    assert causes(runs) == [["CRASHED"], ["CRASHED"], ["CRASHED"], ["DONE"]], "blocked, and done only once"


def test_a_run_that_the_kernel_killed_for_its_memory_is_out_of_memory(
    endless: list[RunDir], start: Callable[..., Running], tmp_path: Path
) -> None:
    kills = tmp_path / "kills"
    kills.write_text("7")
    before = f"from hpc.node import fork; fork.memory_kills = lambda: int(open({str(kills)!r}).read())"
    task = start(endless[:2], before=before)
    pids = [pid_of(run) for run in endless[:2]]
    kills.write_text("8")
    os.kill(pids[0], signal.SIGKILL)
    wait_until(lambda: endless[0].attempts()[-1].ended)
    os.kill(pids[1], signal.SIGKILL)
    assert task.ended() == 1
    assert causes(endless[:2]) == [["OUT_OF_MEMORY"], ["KILLED"]]


@pytest.mark.parametrize(("number", "cause"), [(signal.SIGUSR2, "TIMEOUT"), (signal.SIGTERM, "INTERRUPTED")])
def test_a_signal_to_the_task_saves_all_its_runs(
    endless: list[RunDir], start: Callable[..., Running], number: int, cause: str
) -> None:
    task = start(endless)
    for run in endless[:2]:
        pid_of(run)
    os.kill(task.pid, number)
    code = task.ended()
    assert causes(endless) == [[cause], [cause], [], []]
    assert ("requeued" in task.stdout, code == 255) == (cause == "TIMEOUT", cause == "TIMEOUT")
    for run in endless[:2]:
        (attempt,) = run.attempts()
        assert attempt.last_step > 0
        assert [path.name for path in run.checkpoints.glob("*")]
        assert not run.is_locked_now()


def test_a_signal_that_reaches_every_process_is_answered_once(
    endless: list[RunDir], start: Callable[..., Running]
) -> None:
    """SLURM signals all processes of a step, and the task forwards the signal besides."""
    task = start(endless[:2])
    for pid in [*(pid_of(run) for run in endless[:2]), task.pid]:
        os.kill(pid, signal.SIGUSR2)
    assert task.ended() == 255
    assert causes(endless[:2]) == [["TIMEOUT"], ["TIMEOUT"]]
    assert task.stdout.count("requeued") == 1


def test_a_signal_to_one_run_requeues_the_task_for_it_once_the_others_are_done(
    endless: list[RunDir], start: Callable[..., Running]
) -> None:
    runs = [endless[0], *endless[2:]]
    task = start(runs)
    os.kill(pid_of(runs[0]), signal.SIGUSR2)
    assert task.ended() == 255
    assert causes(runs) == [["TIMEOUT"], ["DONE"], ["DONE"]]
    assert task.stdout.count("requeued") == 1


@pytest.mark.parametrize("end", ["kill -9", "an error of its own"])
def test_runs_end_with_their_task(endless: list[RunDir], start: Callable[..., Running], end: str) -> None:
    """Outside of its allocation, a run would compute on a slice that SLURM gives to others."""
    # A signal that the task does not handle stands for what ends it in Python.
    broken = "import signal; signal.signal(signal.SIGUSR1, lambda *_: 1 / 0)"
    task = start(endless[:2], before=broken)
    for run in endless[:2]:
        pid_of(run)
    os.kill(task.pid, signal.SIGKILL if end == "kill -9" else signal.SIGUSR1)
    assert task.ended() != 0
    for run in endless[:2]:
        wait_until(lambda run=run: not run.is_locked_now())
        assert not run.attempts()[-1].ended


def test_a_fork_whose_parent_is_gone_already_does_nothing(tmp_path: Path) -> None:
    done = tmp_path / "done"

    def parent() -> None:
        # The parent ends while its fork is stopped before it has asked to end with it.
        real = forks.end_with

        def late(pid: int) -> None:
            os.kill(pid, signal.SIGKILL)
            while os.getppid() == pid:
                time.sleep(0.001)
            real(pid)

        forks.end_with = late
        forks.fork(done.touch)
        time.sleep(60)

    pid = os.fork()
    if pid == 0:
        parent()
    os.waitpid(pid, 0)
    time.sleep(0.2)
    assert not done.exists()


def test_a_cancel_of_one_run_leaves_the_others(endless: list[RunDir], start: Callable[..., Running]) -> None:
    runs = [endless[0], *endless[2:]]
    task = start(runs)
    pid_of(runs[0])
    runs[0].cancel()
    assert task.ended() == 0
    assert causes(runs) == [["CANCELLED"], ["DONE"], ["DONE"]]
    assert runs[0].attempts()[0].last_step > 0
    assert "requeued" not in task.stdout


def test_runs_at_once_end_with_the_results_of_runs_in_sequence(
    small: Callable[..., Config], start: Callable[..., Running], tmp_path: Path
) -> None:
    runs = grid(small(train__epochs=2))
    stopped = start(runs, at_once=3, before="")
    for run in runs[:3]:
        wait_until(lambda run=run: run.metrics_file.exists())
    os.kill(stopped.pid, signal.SIGUSR2)
    assert stopped.ended() in (0, 255)
    together = start(runs, at_once=3)
    assert together.ended() == 0, together.stderr
    assert "gpu in the parent: False" in together.stdout
    straight = grid(small(train__epochs=2, paths__runs_dir=str(tmp_path / "straight")))
    for run in straight:
        # One run is executed without a fork.
        assert start([run]).ended() == 0
    for run, other in zip(runs, straight, strict=True):
        assert_same_run(run, other)
        assert causes([run])[0].count("DONE") == 1
        assert {attempt.at_once for attempt in run.attempts()} == {3}
        assert other.attempts()[0].at_once == 1


def test_no_more_runs_than_asked_for_are_executed_at_a_time(
    small: Callable[..., Config], start: Callable[..., Running]
) -> None:
    runs = grid(small())
    task = start(runs, at_once=2)
    assert task.ended() == 0, task.stderr
    spans = [(run.attempts()[0].start, run.attempts()[0].end) for run in runs]
    together = [sum(start <= moment < end for start, end in spans) for moment, _ in spans]
    assert max(together) == 2
    assert len({run.attempts()[0].pid for run in runs} - {task.pid}) == 4
    assert all(f"{run.label}: step 12/12" in task.stderr for run in runs), "lines of a shared log name their run"


def test_a_signal_while_forks_start_is_never_lost() -> None:
    """Python forgets what reaches a fork before os.fork returns: here signals arrive all the time."""
    noted: list[int] = []
    before = signal.signal(signal.SIGUSR2, lambda number, _: noted.append(number))
    try:
        for delay_us in range(0, 1500, 30):
            noted.clear()
            reading, writing = os.pipe()

            def work(writing: int = writing) -> None:
                deadline = time.monotonic() + 10
                while not noted and time.monotonic() < deadline:
                    time.sleep(0.001)
                os.write(writing, b"1" if noted else b"0")

            pid = forks.fork(work)
            # Busy: time.sleep is too coarse.
            until = time.perf_counter() + delay_us / 1e6
            while time.perf_counter() < until:
                pass
            os.kill(pid, signal.SIGUSR2)
            os.waitpid(pid, 0)
            assert os.read(reading, 1) == b"1"
            os.close(reading)
            os.close(writing)
    finally:
        signal.signal(signal.SIGUSR2, before)
