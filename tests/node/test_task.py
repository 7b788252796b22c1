"""Tasks with several runs, executed here with the real training; only SLURM's answer to a requeue is stood in for."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import jobs
from hpc import slurm
from hpc.monitor.status import query_status
from hpc.node import task as lifecycle
from hpc.node.execution import execute_run
from hpc.node.gpu_check import check_slice, slice_mismatch
from hpc.node.task import execute_runs
from hpc.recovery.diagnosis import StopRequest
from relay import hints
from relay.errors import ClusterError, DataError
from relay.files import append_lines
from relay.progress import PlainReporter, Reporter, StopCheck
from relay.runs.lifecycle import Outcome
from relay.runs.rundir import RunDir
from relay.runs.sweeps import open_sweep
from src.config.schema import Config
from src.requests import grid_request
from tests.conftest import assert_same_run, fake


@pytest.fixture
def handlers_back() -> Any:
    before = {number: signal.getsignal(number) for number in (signal.SIGUSR2, signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def requeued(monkeypatch: pytest.MonkeyPatch, handlers_back: Any) -> list[str]:
    asked: list[str] = []
    monkeypatch.setattr(lifecycle, "_requeue", lambda: asked.append("requeue"))
    return asked


def grid_runs(config: Config) -> list[RunDir]:
    return open_sweep(grid_request(config), fresh=True)[0].runs()


def wait_for_the_signal(should_stop: StopCheck) -> None:
    deadline = time.monotonic() + 30
    while not should_stop() and time.monotonic() < deadline:
        pass


def signal_in(monkeypatch: pytest.MonkeyPatch, third: str, number: int) -> None:
    """The task gets a signal at the fifth question of the run of this name."""
    task = os.getpid()
    real = jobs.WORKS["grid"].execute

    def execute(run: RunDir, should_stop: StopCheck, reporter: Reporter) -> Outcome:
        asked = 0

        def ask() -> bool:
            nonlocal asked
            asked += 1
            if asked == 5 and run.name == third:
                os.kill(task, number)
                wait_for_the_signal(should_stop)
            return should_stop()

        return real(run, ask, reporter)

    monkeypatch.setitem(jobs.WORKS, "grid", replace(jobs.WORKS["grid"], execute=execute))


def test_a_time_limit_in_the_third_run_resumes_in_the_third(
    small: Callable[..., Config], monkeypatch: pytest.MonkeyPatch, requeued: list[str], tmp_path: Any
) -> None:
    runs = grid_runs(small())
    with monkeypatch.context() as context:
        signal_in(context, runs[2].name, signal.SIGUSR2)
        with pytest.raises(SystemExit):
            execute_runs(runs)
    assert requeued == ["requeue"]
    assert [run.result() is not None for run in runs] == [True, True, False, False]
    assert [a.cause for a in runs[2].attempts()] == ["TIMEOUT"]
    assert runs[2].attempts()[0].last_step > 0
    assert set(execute_runs(runs).values()) == {"DONE"}
    assert [len(run.attempts()) for run in runs] == [1, 1, 2, 1]
    straight = grid_runs(small(paths__runs_dir=str(tmp_path / "straight")))
    execute_runs(straight)
    for run, other in zip(runs, straight, strict=True):
        assert_same_run(run, other)


def test_a_cancel_saves_and_does_not_requeue(
    small: Callable[..., Config], monkeypatch: pytest.MonkeyPatch, requeued: list[str]
) -> None:
    runs = grid_runs(small())
    signal_in(monkeypatch, runs[1].name, signal.SIGTERM)
    states_after = execute_runs(runs)
    assert requeued == []
    assert list(states_after.values()) == ["DONE", "INTERRUPTED"]
    assert runs[1].attempts()[-1].cause == "INTERRUPTED"
    assert runs[2].attempts() == ()


def test_a_cancel_is_not_undone_where_the_controller_was_away_at_first(
    small: Callable[..., Config], monkeypatch: pytest.MonkeyPatch, requeued: list[str], commands: Any
) -> None:
    run = grid_runs(small())[0]
    monkeypatch.setenv("SLURM_JOB_ID", "9")
    away = "echo 'Socket timed out on send/recv operation' >&2; exit 1"
    count = f"echo >> '{commands}/asked'; [ $(cat '{commands}/asked' | wc -l) -le 4 ] && {{ {away}; }}"
    fake(commands, "scontrol", f"{count}\necho 'JobId=9 JobState=CANCELLED Restarts=0'")
    signal_in(monkeypatch, run.name, signal.SIGTERM)
    execute_runs([run])
    assert run.attempts()[-1].cause == "SIGNALLED"
    assert requeued == []


def test_a_task_whose_runs_may_not_go_on_is_not_requeued(
    small: Callable[..., Config], monkeypatch: pytest.MonkeyPatch, requeued: list[str]
) -> None:
    run = grid_runs(small())[0]
    for number in range(1, 51):
        run.record_attempt(number, start=1.0, end=2.0, cause="TIMEOUT", first_step=number, last_step=number + 1)
    signal_in(monkeypatch, run.name, signal.SIGUSR2)
    execute_runs([run])
    assert run.attempts()[-1].cause == "TIMEOUT"
    assert requeued == []


def test_a_stop_between_two_runs_requeues_for_the_rest(
    small: Callable[..., Config], monkeypatch: pytest.MonkeyPatch, requeued: list[str]
) -> None:
    runs = grid_runs(small())
    real, task = jobs.WORKS["grid"].execute, os.getpid()

    def execute(run: RunDir, should_stop: StopCheck, reporter: Reporter) -> Outcome:
        outcome = real(run, should_stop, reporter)
        if run == runs[1]:
            os.kill(task, signal.SIGUSR2)
        return outcome

    monkeypatch.setitem(jobs.WORKS, "grid", replace(jobs.WORKS["grid"], execute=execute))
    with pytest.raises(SystemExit):
        execute_runs(runs)
    assert requeued == ["requeue"]
    assert [len(run.attempts()) for run in runs] == [1, 1, 0, 0]


@pytest.mark.parametrize(
    ("refusal", "reason"),
    [
        ("Requested operation is presently disabled for job 70", "presently disabled"),
        ("slurm_requeue error: Access/permission denied", "denied"),
        # Longer than the hour for which the task asks again.
        ("slurm_load_jobs error: Unable to contact slurm controller (connect failure)", "did not answer"),
    ],
)
@pytest.mark.parametrize("at_once", [1, 2])
def test_a_task_that_may_not_be_requeued_says_how_to_continue(
    small: Callable[..., Config],
    monkeypatch: pytest.MonkeyPatch,
    handlers_back: Any,
    commands: Path,
    capfd: pytest.CaptureFixture[str],
    refusal: str,
    reason: str,
    at_once: int,
) -> None:
    runs = grid_runs(small())[:at_once]
    sweep = runs[0].sweep()
    tasks = {"job_name": "relay-x.1", "tasks": [[run.name for run in runs]]}
    append_lines(sweep.submissions_file, [{**tasks, "time": 1.0}, {"job_name": "relay-x.1", "job_id": "70"}])
    monkeypatch.setenv("SLURM_JOB_ID", "70")
    fake(commands, "squeue", "true")
    show = 'echo "JobId=70 JobState=RUNNING Restarts=0 EndTime=$(date +%FT%T -d "30 seconds")"'
    fake(commands, "scontrol", f'[ "$1" = requeue ] || {{ {show}; exit; }}; echo "{refusal}" >&2; exit 1')
    signal_in(monkeypatch, runs[-1].name, signal.SIGUSR2)
    with pytest.raises(SystemExit) as left:
        execute_runs(runs)
    assert left.value.code == 1
    said = capfd.readouterr().err
    assert "Traceback" not in said
    (line,) = (line for line in said.splitlines() if "not requeued: scontrol: " in line)
    assert reason in line
    assert f"; to continue: {hints.again(saved=sweep.meta())}" in line
    stopped = runs[-1].attempts()[-1]
    assert (stopped.cause, reason in stopped.error, stopped.last_step > 0) == ("TIMEOUT", True, True)
    row = next(row for row in query_status(sweep).rows if row.run == runs[-1].name)
    assert (row.state, row.causes) == ("timeout", "TIMEOUT")
    assert row.error.startswith("not requeued: scontrol: ")


def test_a_crash_keeps_no_other_run_from_its_end_and_is_not_tried_again(
    small: Callable[..., Config], monkeypatch: pytest.MonkeyPatch, requeued: list[str], capfd: Any, tmp_path: Path
) -> None:
    runs = grid_runs(small())
    real, calls = jobs.WORKS["grid"].execute, tmp_path / "calls"

    def execute(run: RunDir, should_stop: StopCheck, reporter: Reporter) -> Outcome:
        append_lines(calls, [{"run": run.name}])
        if run == runs[0]:
            raise DataError("the images are gone")
        if run == runs[1]:
            raise MemoryError
        return real(run, should_stop, reporter)

    monkeypatch.setitem(jobs.WORKS, "grid", replace(jobs.WORKS["grid"], execute=execute))
    for _ in range(2):
        with pytest.raises(SystemExit) as left:
            execute_runs(runs)
        assert left.value.code == 1
    assert [run.attempts()[-1].cause for run in runs] == ["CRASHED", "OUT_OF_MEMORY", "DONE", "DONE"]
    assert [len(run.attempts()) for run in runs] == [1, 1, 1, 1]
    assert len(calls.read_text().splitlines()) == 4
    assert "-m hpc.launch retry grid_" in capfd.readouterr().err


def test_a_run_that_is_done_by_the_time_it_is_claimed_is_left_alone(
    small: Callable[..., Config], requeued: list[str]
) -> None:
    runs = grid_runs(small())[:1]
    execute_runs(runs)
    assert execute_run(runs[0], StopRequest(), PlainReporter()) == "DONE"
    assert len(runs[0].attempts()) == 1


def test_an_attempt_killed_after_its_result_counts_as_done(small: Callable[..., Config], requeued: list[str]) -> None:
    run = grid_runs(small())[0]
    execute_runs([run])
    lines = run.attempts_file.read_text().splitlines()
    run.attempts_file.write_text(lines[0] + "\n")
    assert [a.cause for a in run.attempts()] == ["DONE"]


def test_a_lost_attempt_is_closed_with_what_it_left(small: Callable[..., Config], requeued: list[str]) -> None:
    run = grid_runs(small(checkpoint__every_steps=2))[0]
    execute_runs([run])
    run.result_file.unlink()
    run.attempts_file.write_text(run.attempts_file.read_text().splitlines()[0] + "\n")
    execute_runs([run])
    unfinished, last = run.attempts()
    assert (unfinished.cause, unfinished.first_step, unfinished.last_step) == (
        "KILLED",
        0,
        12,
    )
    assert unfinished.start <= unfinished.end <= last.start
    assert last.cause == "DONE"


def test_states_that_nobody_knows_are_neither_done_nor_failed() -> None:
    assert slurm.phase("QUANTUM_HOLD") == "unknown"
    assert slurm.in_flight("QUANTUM_HOLD")
    assert slurm.phase("CANCELLED by 1000") == "over"
    assert not slurm.in_flight("NODE_FAIL")
    assert slurm.in_flight("SUSPENDED")
    assert slurm.in_flight("COMPLETING")


class Slice:
    def __init__(self, name: str, gigabytes: float) -> None:
        self.name, self.total_memory = name, int(gigabytes * 1e9)


def test_a_cpu_where_a_gpu_was_asked_for_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setenv("RELAY_NEEDS_GPU", "0")
    assert "no GPU asked for" in check_slice()
    monkeypatch.setenv("RELAY_NEEDS_GPU", "1")
    with pytest.raises(ClusterError, match="0 GPUs are visible"):
        check_slice()
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    monkeypatch.setenv("RELAY_SLICE", "gpu:1g.12gb:1")
    monkeypatch.setattr("torch.cuda.get_device_properties", lambda index: Slice("NVIDIA H100 NVL MIG 1g.12gb", 11.5))
    assert "MIG 1g.12gb, 10.71 GiB" in check_slice()
    monkeypatch.setattr("torch.cuda.get_device_properties", lambda index: Slice("NVIDIA H100 NVL", 94.0))
    with pytest.raises(ClusterError, match=r"94\.0 GB where 1g\.12gb was asked for"):
        check_slice()


@pytest.mark.parametrize(
    ("wanted", "name", "gigabytes", "fits"),
    [
        ("gpu:1g.12gb:1", "NVIDIA H100 NVL MIG 1g.12gb", 11.5, True),
        ("gpu:nvidia_h100_80gb_hbm3_1g.10gb:1", "NVIDIA H100 80GB HBM3 MIG 1g.10gb", 10.2, True),
        ("gpu:1g.12gb:1", "NVIDIA H100 NVL MIG 2g.24gb", 23.0, False),
        ("gpu:1g.12gb:1", "NVIDIA H100 NVL", 94.0, False),
        ("gpu:1g.12gb:1", "some slice", 11.0, True),
        ("gpu:h100:1", "NVIDIA H100 NVL", 94.0, True),
        ("", "NVIDIA H200", 141.0, True),
    ],
)
def test_the_slice_is_the_one_that_the_profile_names(wanted: str, name: str, gigabytes: float, fits: bool) -> None:
    assert (slice_mismatch(wanted, name, int(gigabytes * 1e9)) == "") == fits


def test_an_attempt_lost_before_slurm_put_its_job_back_is_a_node_failure(
    small: Callable[..., Config], requeued: list[str], monkeypatch: pytest.MonkeyPatch, commands: Any
) -> None:
    fake(commands, "sacct", "echo 'Slurm accounting storage is disabled' >&2; exit 1")
    run, other = grid_runs(small())[:2]
    run.record_attempt(1, start=1.0, job="70_1", cluster="c")
    other.record_attempt(1, start=1.0, job="69_1", cluster="c")
    monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "70")
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "1")
    execute_runs([run, other])
    assert [a.cause for a in run.attempts()] == ["NODE_FAIL", "DONE"]
    assert [a.cause for a in other.attempts()] == ["KILLED", "DONE"]
