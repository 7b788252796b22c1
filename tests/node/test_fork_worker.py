"""A worker of this machine for real: a process that executes each run in a fork."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hpc.submission.local_worker import LocalJob, LocalWorker
from src.config.schema import Config
from src.requests import grid_request
from src.runs.code_snapshot import sweep_code
from src.runs.rundir import RunDir, SweepDir
from src.runs.sweeps import open_sweep
from tests.node.waiting import pid_of, wait_until

LONG_S = 300.0


@pytest.fixture
def sweep(small: Callable[..., Config]) -> SweepDir:
    """Four cells that take a while, unless they are stopped."""
    return open_sweep(grid_request(small(hparams={"epochs": 2000, "num_modules": [2, 3], "lr": [0.001, 0.01]})))[0]


@pytest.fixture
def start(sweep: SweepDir, tmp_path: Path) -> Iterator[Callable[..., LocalWorker]]:
    """Start a worker with a first job."""
    workers: list[LocalWorker] = []

    def make(run: RunDir, limit_s: float = LONG_S) -> LocalWorker:
        workers.append(LocalWorker(job(run, tmp_path), sweep_code(sweep), {}, limit_s=limit_s, lead_s=30.0))
        return workers[-1]

    yield make
    for worker in workers:
        worker.stop()
        worker.close()


def job(run: RunDir, folder: Path) -> LocalJob:
    return LocalJob(run, folder)


def test_a_worker_outlives_its_runs_whatever_ends_them(
    sweep: SweepDir, start: Callable[..., LocalWorker], tmp_path: Path
) -> None:
    killed, stopped, warned = sweep.runs()[:3]
    worker = start(killed)
    os.kill(pid_of(killed), signal.SIGKILL)
    wait_until(lambda: not worker.is_busy())
    assert worker.is_usable()
    assert "end" not in killed.attempts()[-1]
    assert not killed.is_locked_now()

    worker.start(job(stopped, tmp_path))
    pid_of(stopped)
    worker.stop()
    wait_until(lambda: not worker.is_busy())
    assert worker.is_usable()
    assert stopped.attempts()[-1]["cause"] == "CANCELLED"

    mine = job(warned, tmp_path)
    worker.start(mine)
    os.kill(pid_of(warned), signal.SIGUSR2)
    wait_until(lambda: not worker.is_busy())
    assert worker.is_usable()
    assert worker.is_alive()
    assert warned.attempts()[-1]["cause"] == "TIMEOUT"
    assert warned.attempts()[-1]["job"] == mine.id
    assert "the state is saved" in mine.stderr.read_text()


def test_a_run_is_warned_before_its_time_limit_and_saves(sweep: SweepDir, start: Callable[..., LocalWorker]) -> None:
    run = sweep.runs()[0]
    worker = start(run, limit_s=31.0)
    wait_until(lambda: not worker.is_busy())
    (attempt,) = run.attempts()
    assert attempt["cause"] == "TIMEOUT"
    assert attempt["end"] - attempt["start"] < 25


def test_a_run_whose_worker_is_killed_is_completed_by_nobody_else_meanwhile(
    sweep: SweepDir, start: Callable[..., LocalWorker]
) -> None:
    run = sweep.runs()[0]
    worker = start(run)
    pid = pid_of(run)
    os.kill(worker._process.pid, signal.SIGKILL)
    wait_until(lambda: not worker.is_busy())
    assert not worker.is_usable()
    assert not worker.is_alive()
    assert run.is_locked_now()
    os.kill(pid, signal.SIGTERM)
    wait_until(lambda: not run.is_locked_now())
    assert run.attempts()[-1]["cause"] == "CANCELLED"
