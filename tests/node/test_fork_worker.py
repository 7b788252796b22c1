"""A worker of this machine for real: a process that executes each run in a fork."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hpc.submission.local_worker import LocalJob, LocalWorker
from relay.runs.code_snapshot import sweep_code
from relay.runs.rundir import SweepDir
from relay.runs.sweeps import open_sweep
from src.config.schema import Config
from src.requests import grid_request
from tests.node.waiting import pid_of, wait_until


@pytest.fixture
def sweep(small: Callable[..., Config]) -> SweepDir:
    """Four cells that take a while, unless they are stopped."""
    return open_sweep(grid_request(small(hparams={"epochs": 2000, "num_modules": [1, 2], "lr": [0.001, 0.01]})))[0]


@pytest.fixture
def start(sweep: SweepDir, tmp_path: Path) -> Iterator[Callable[..., LocalWorker]]:
    """Start a worker."""
    workers: list[LocalWorker] = []

    def make() -> LocalWorker:
        workers.append(LocalWorker(tmp_path, sweep_code(sweep), {}))
        return workers[-1]

    yield make
    for worker in workers:
        worker.stop()
        worker.close()


def test_a_worker_outlives_its_runs_whatever_ends_them(
    sweep: SweepDir, start: Callable[..., LocalWorker], tmp_path: Path
) -> None:
    killed, warned, stopped, also_stopped = (LocalJob(run, tmp_path) for run in sweep.runs())
    worker = start()
    for job in (killed, warned, stopped):
        worker.start(job)
    pids = {job: pid_of(job.run) for job in (killed, warned, stopped)}
    os.kill(pids[killed], signal.SIGKILL)
    wait_until(lambda: not worker.is_busy(killed))
    assert not killed.run.attempts()[-1].ended
    assert not killed.run.is_locked_now()

    os.kill(pids[warned], signal.SIGUSR2)
    wait_until(lambda: not worker.is_busy(warned))
    assert warned.run.attempts()[-1].cause == "TIMEOUT"
    assert warned.run.attempts()[-1].job == warned.id
    assert "the state is saved" in warned.stderr.read_text()

    assert worker.is_busy(stopped), "the others were left alone"
    worker.start(also_stopped)
    pid_of(also_stopped.run)
    worker.stop()
    wait_until(lambda: not worker.is_busy(stopped) and not worker.is_busy(also_stopped))
    assert worker.is_alive()
    for job in (stopped, also_stopped):
        assert [attempt.cause for attempt in job.run.attempts()] == ["INTERRUPTED"]
    worker.close()
    assert list(tmp_path.glob("*worker*")) == [], "an empty log is removed"


def test_a_stop_is_also_for_what_was_requested_a_moment_before(
    sweep: SweepDir, start: Callable[..., LocalWorker], tmp_path: Path
) -> None:
    first, *others = (LocalJob(run, tmp_path) for run in sweep.runs())
    worker = start()
    worker.start(first)
    pid_of(first.run)
    for job in others:
        worker.start(job)
    worker.stop()
    wait_until(lambda: not any(worker.is_busy(job) for job in (first, *others)))
    assert {attempt.cause for job in others for attempt in job.run.attempts()} <= {"INTERRUPTED"}
    assert worker.is_alive()


def test_runs_end_with_their_worker(sweep: SweepDir, start: Callable[..., LocalWorker], tmp_path: Path) -> None:
    jobs = [LocalJob(run, tmp_path) for run in sweep.runs()[:2]]
    worker = start()
    for job in jobs:
        worker.start(job)
    for job in jobs:
        pid_of(job.run)
    os.kill(worker._process.pid, signal.SIGKILL)
    for job in jobs:
        wait_until(lambda job=job: not worker.is_busy(job) and not job.run.is_locked_now())
        # The next attempt closes this one.
        assert not job.run.attempts()[-1].ended
    assert not worker.is_alive()


def test_an_error_of_the_worker_itself_is_in_its_log(sweep: SweepDir, tmp_path: Path) -> None:
    empty = tmp_path / "no-code"
    empty.mkdir()
    worker = LocalWorker(tmp_path, empty, {"PYTHONPATH": ""})
    job = LocalJob(sweep.runs()[0], tmp_path)
    worker.start(job)
    wait_until(lambda: not worker.is_busy(job))
    assert not worker.is_alive()
    worker.close()
    assert "No module named" in worker.log.read_text()
