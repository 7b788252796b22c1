"""Locks between processes: real locks, held by real processes. Only SLURM's answers are fake."""

from __future__ import annotations

import errno
import subprocess
import threading
import time
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from hpc.node import run_lock
from hpc.node.run_lock import wait_for_run_lock
from relay.errors import RunError, TakenOverError
from relay.files import append_lines, read_lines
from relay.program.states import save_state
from relay.progress import PlainReporter, Reporter, StopCheck
from relay.runs import ownership
from relay.runs.attempt import Attempt
from relay.runs.lifecycle import Outcome, attempt
from relay.runs.rundir import RunDir
from relay.runs.sweeps import open_sweep
from src.config.schema import Config
from src.requests import lr_sweep_request, train_request
from src.training.metric_log import MetricsLog
from src.training.weights import save_weights
from tests.conftest import fake

HOLD = """
import sys
from pathlib import Path
from relay.runs.rundir import RunDir
with RunDir(Path(sys.argv[1])).lock():
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def run(small: Callable[..., Config]) -> RunDir:
    return open_sweep(train_request(small()))[0].runs()[0]


def never() -> bool:
    return False


def no_work(*_: object) -> Outcome:
    return Outcome("done", 0, 0, 0)


def test_a_lock_excludes_other_processes_and_ends_with_its_own(run: RunDir, holder: subprocess.Popen[str]) -> None:
    assert run.is_locked_now()
    with pytest.raises(RunError, match="executed by another process"):
        attempt(run, no_work, never, PlainReporter())
    holder.kill()
    holder.wait()
    assert not run.is_locked_now()
    attempt(run, no_work, never, PlainReporter())
    assert run.attempts()[-1].cause == "DONE"


@pytest.fixture
def of_job(run: RunDir, holder: subprocess.Popen[str], monkeypatch: pytest.MonkeyPatch) -> RunDir:
    """The run, held by a process of the job 70 of this cluster."""
    monkeypatch.setenv("SLURM_CLUSTER_NAME", "c")
    monkeypatch.setattr(run_lock, "_ASK_EVERY_S", 0.05)
    run.record_attempt(1, job="70", cluster="c", start=time.time())
    return run


GIVEN_UP = "echo 'JobId=70 JobState=NODE_FAIL Restarts=0'"


@pytest.mark.parametrize(
    ("answer", "broken"),
    [
        (GIVEN_UP, True),
        ("echo 'JobId=70 JobState=PENDING Restarts=1'", True),
        ("echo 'slurm_load_jobs error: Invalid job id specified' >&2; exit 1", True),
        ("echo 'JobId=70 JobState=COMPLETING Restarts=0'", False),
        ("echo 'JobId=70 JobState=QUANTUM_HOLD Restarts=0'", False),
        ("echo 'Unable to contact slurm controller' >&2; exit 1", False),
    ],
)
def test_a_lock_is_broken_only_where_its_owners_job_is_over(
    of_job: RunDir, commands: Path, answer: str, broken: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    fake(commands, "scontrol", answer)
    assert wait_for_run_lock(of_job, never, 0.3)
    assert of_job.is_locked_now() != broken
    assert ("the lock is broken" in capsys.readouterr().err) == broken


@pytest.mark.parametrize("state", ["RUNNING", "SUSPENDED"])
def test_a_task_whose_run_another_one_executes_is_not_needed(of_job: RunDir, commands: Path, state: str) -> None:
    fake(commands, "scontrol", f"echo 'JobId=70 JobState={state} Restarts=0'")
    assert not wait_for_run_lock(of_job, never, 60)
    assert of_job.is_locked_now()


LATER = "StartTime=$(date +%FT%T -d '+2 hours')"


@pytest.mark.parametrize(
    ("facts", "another"),
    [
        (f"JobState=RUNNING Restarts=0 {LATER}", True),
        (f"JobState=SUSPENDED Restarts=0 {LATER}", True),
        # Requeued since: it is this job, and executes the run or will.
        (f"JobState=RUNNING Restarts=1 {LATER}", False),
        ("JobState=RUNNING Restarts=0 StartTime=$(date +%FT%T -d '+5 minutes')", False),
    ],
)
def test_a_later_job_with_the_same_id_does_not_hold_the_run(
    of_job: RunDir, commands: Path, facts: str, another: bool
) -> None:
    fake(commands, "scontrol", f'echo "JobId=70 {facts}"')
    assert wait_for_run_lock(of_job, never, 0.2) == another
    assert of_job.is_locked_now() != another


def test_the_lock_of_no_job_or_of_another_clusters_stays(
    run: RunDir, holder: subprocess.Popen[str], commands: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake(commands, "scontrol", GIVEN_UP)
    run.record_attempt(1, job="70", start=time.time())
    assert wait_for_run_lock(run, never, 0.1)
    assert run.is_locked_now(), "a process of this machine has no job that SLURM could know"
    run.record_attempt(1, cluster="c")
    monkeypatch.setenv("SLURM_CLUSTER_NAME", "other")
    assert wait_for_run_lock(run, never, 0.1)
    assert run.is_locked_now(), "the other cluster does not know that job"


def test_the_lock_of_an_earlier_execution_of_this_very_job_is_broken(
    of_job: RunDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "70")
    assert wait_for_run_lock(of_job, never, 0.2)
    assert not of_job.is_locked_now()


def test_the_lock_of_a_beating_heart_is_never_broken(
    of_job: RunDir, commands: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SLURM has given the node up, and the process on it computes an epoch without writing anything."""
    fake(commands, "scontrol", GIVEN_UP)
    monkeypatch.setattr(ownership, "HEARTBEAT_S", 0.05)
    patience = time.monotonic() + 2
    with of_job.owned():
        assert wait_for_run_lock(of_job, lambda: time.monotonic() > patience, 0.5)
        assert time.monotonic() > patience
        assert of_job.is_locked_now()
    assert wait_for_run_lock(of_job, never, 0.5)
    assert not of_job.is_locked_now(), "a heart that has stopped is given up"


def test_who_was_taken_over_writes_nothing_more(run: RunDir) -> None:
    with run.owned() as first, run.owned() as second:
        for write in (
            lambda run: run.write_result({}),
            lambda run: run.record_attempt(1, start=1.0),
            lambda run: save_state(run.checkpoints, 1, {}, 2, run.check_owner),
            lambda run: save_weights(run.best_file, {}, run.check_owner),
        ):
            run.checkpoints.mkdir(exist_ok=True)
            with pytest.raises(TakenOverError, match="taken over by another process"):
                write(first)
            write(second)
        assert len(list(run.checkpoints.iterdir())) == 2
        append_lines(run.metrics_file, [{"step": 1}])
        with pytest.raises(TakenOverError):
            MetricsLog(first, 0, {})
        assert read_lines(run.metrics_file) == [{"step": 1}]
        assert not list(run.path.rglob(".*.tmp"))


class TakeOver(PlainReporter):
    """Another process takes the run over when it has come to a step."""

    def __init__(self, run: RunDir, at_step: int) -> None:
        super().__init__()
        self._run, self._at_step = run, at_step
        self.before: dict[str, bytes] = {}

    def advance(self, done: int, total: int, text: str, unit: str = "step") -> None:
        if done >= self._at_step and not self.before:
            with self._run.owned():
                pass
            self._run.record_attempt(1, end=time.time(), cause="NODE_FAIL")
            self.before = contents(self._run)


def contents(run: RunDir) -> dict[str, bytes]:
    files = [path for path in run.path.rglob("*") if path.is_file() and "tfevents" not in path.name]
    return {str(path): path.read_bytes() for path in files}


@pytest.mark.parametrize("saving", [{"checkpoint__every_steps": 1}, {"metrics__log_every_steps": 2}, {}])
def test_a_training_that_was_taken_over_stops_and_leaves_the_run_as_it_is(
    small: Callable[..., Config], saving: dict[str, int]
) -> None:
    from src.training.trainer import train

    run = open_sweep(train_request(small(**saving)))[0].runs()[0]
    reporter = TakeOver(run, 4)
    with pytest.raises(TakenOverError):
        attempt(run, train, never, reporter)
    assert reporter.before
    assert contents(run) == reporter.before
    assert [a.cause for a in run.attempts()] == ["NODE_FAIL"]


def test_a_checkpoint_that_hung_until_the_run_was_taken_over_does_not_count(
    small: Callable[..., Config], monkeypatch: pytest.MonkeyPatch
) -> None:
    from relay.program import states as checkpoint
    from src.training import weights
    from src.training.trainer import train

    run = open_sweep(train_request(small()))[0].runs()[0]
    real = checkpoint.to_bytes

    def hang(content: Mapping[str, Any]) -> bytes:
        with run.owned():
            return real(content)

    for module in (checkpoint, weights):
        monkeypatch.setattr(module, "to_bytes", hang)
    with pytest.raises(TakenOverError):
        attempt(run, train, never, PlainReporter())
    assert list(run.checkpoints.iterdir()) == []


def test_a_sweep_of_rates_that_was_taken_over_leaves_no_result(small: Callable[..., Config]) -> None:
    from src.training.lr_range import sweep_rates

    run = open_sweep(lr_sweep_request(small()))[0].runs()[0]
    with pytest.raises(TakenOverError):
        attempt(run, sweep_rates, never, TakeOver(run, 4))
    assert run.result() is None


def test_the_heartbeat_stops_work_that_writes_nothing(run: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ownership, "HEARTBEAT_S", 0.05)

    stopped: list[bool] = []

    def work(run: RunDir, should_stop: StopCheck, reporter: Reporter) -> Outcome:
        with RunDir(run.path).owned():
            pass
        deadline = time.monotonic() + 20
        while not stopped and time.monotonic() < deadline:
            stopped.extend([True] if should_stop() else [])
            time.sleep(0.01)
        return Outcome("stopped", 0, 1, 2)

    with pytest.raises(TakenOverError):
        attempt(run, work, never, PlainReporter())
    assert stopped
    assert not run.attempts()[0].ended, "its new owner says how it ended"


def test_the_first_end_of_an_attempt_counts(run: RunDir) -> None:
    run.record_attempt(1, start=1.0)
    run.record_attempt(1, end=2.0, cause="NODE_FAIL")
    run.record_attempt(1, end=9.0, cause="DONE")
    assert run.attempts() == (Attempt(1, 1.0, end=2.0, cause="NODE_FAIL"),)


def test_without_flock_a_file_takes_its_place(run: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(descriptor: int, operation: int) -> None:
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr("fcntl.flock", missing)
    refused: list[bool] = []
    with warnings.catch_warnings(record=True, action="always") as warned, run.lock():
        other = threading.Thread(target=lambda: refused.append(run.is_locked_now()))
        other.start()
        other.join()
    assert "flock not supported" in str(warned[0].message)
    assert refused == [True]
    assert not run.is_locked_now()
