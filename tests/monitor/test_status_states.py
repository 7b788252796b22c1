"""What status shows of tasks: their state as SLURM names it, why they wait in words, and when the sweep is done."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from hpc import slurm
from hpc.monitor.status_rows import sweep_status
from hpc.slurm import QueuedJob
from hpc.submission.forecast import hours_left
from hpc.submission.profile import Profile
from hpc.submission.queue_cleanup import raise_throttle
from relay.files import append_lines
from relay.runs.sweeps import open_sweep
from src.config.schema import Config
from src.requests import grid_request
from tests.conftest import fake


@pytest.mark.parametrize(
    ("state", "shown"),
    [
        ("RUNNING", "running"),
        ("SUSPENDED", "suspended"),
        ("STOPPED", "stopped"),
        ("CONFIGURING", "configuring"),
        ("SIGNALING", "signaling"),
        ("COMPLETING", "ending"),
        ("REQUEUE_HOLD", "queued"),
        ("QUANTUM_LEAP", "QUANTUM_LEAP"),
    ],
)
@pytest.mark.parametrize("begun", [True, False])
def test_a_task_is_shown_in_its_state(small: Callable[..., Config], state: str, shown: str, begun: bool) -> None:
    run, *_ = (sweep := open_sweep(grid_request(small()))[0]).runs()
    if begun:
        run.record_attempt(1, start=1.0, job="7_0", cluster="c", pid=1)
    status = sweep_status(sweep, {run.name: [QueuedJob("7_0", "x", state, "None", "9:00")]})
    assert status.rows[0].state == shown
    assert status.in_flight == 1, "--watch goes on"
    assert (status.rows[0].time_left == "9:00") == (slurm.phase(state) == "running")


@pytest.mark.parametrize(
    ("reason", "words"),
    [
        ("JobArrayTaskLimit", "a place in its array (max_parallel)"),
        ("Priority", "tasks with a higher priority"),
        ("ReqNodeNotAvail, UnavailableNodes:n[1-2]", "nodes that are down, drained or reserved"),
        ("launch failed requeued held", "a release: it could not be started"),
        ("MaxGRESPerAccount", "a limit of your account or QOS: MaxGRESPerAccount"),
        ("QOSMaxJobsPerUserLimit", "a limit of your account or QOS: QOSMaxJobsPerUserLimit"),
        ("NewReasonOfSlurm", "NewReasonOfSlurm"),
    ],
)
def test_why_a_task_waits_is_said_in_words(small: Callable[..., Config], reason: str, words: str) -> None:
    run, *_ = (sweep := open_sweep(grid_request(small()))[0]).runs()
    status = sweep_status(sweep, {run.name: [QueuedJob("7_0", "x", "PENDING", reason, "9:00")]})
    assert status.rows[0].waits_for == words


def test_the_progress_of_a_sweep_and_the_time_to_its_end(small: Callable[..., Config]) -> None:
    """One of four cells took an hour; one is at a third of its steps, and two wait."""
    sweep = open_sweep(grid_request(small(hparams={"lr": [0.1, 0.2, 0.3, 0.4]})))[0]
    first, second, *others = sweep.runs()
    first.record_attempt(1, start=0.0, end=3600.0, cause="DONE", first_step=0, last_step=18, total_steps=18)
    first.write_result({"steps": 18})
    second.record_attempt(1, start=0.0, job="7_0", cluster="c", pid=1, first_step=0, last_step=6, total_steps=18)
    append_lines(second.metrics_file, [{"step": 6, "epoch": 1.0, "time": 1.0}])
    queue = {second.name: [QueuedJob("7_0", "x", "RUNNING", "None", "9:00")]}
    queue |= {run.name: [QueuedJob(f"7_{at}", "x", "PENDING", "Priority", "")] for at, run in enumerate(others, 1)}
    status = sweep_status(sweep, queue)
    assert status.left == pytest.approx({second.name: 2 / 3, others[0].name: 1, others[1].name: 1})
    one, two = (Profile(executor="local", max_parallel=number) for number in (1, 2))
    assert hours_left(sweep, status.left, one) == pytest.approx(8 / 3)
    assert hours_left(sweep, status.left, two) == pytest.approx(4 / 3)
    assert "progress of what is done, queued or running: 33 %\n" in f"{status.summary()}\n"
    assert "33 %; about 1.3 h to the end, once they run" in replace(status, hours_left=4 / 3).summary()
    first.result_file.unlink()
    assert hours_left(sweep, status.left, one) is None
    assert "progress" not in sweep_status(sweep, {}).summary(), "nothing is under way"


def test_more_tasks_at_a_time_are_let_run_where_the_profile_now_allows_them(
    commands: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fake(commands, "scontrol", f'echo "$@" >> "{commands}/asked"')

    def job(name: str, state: str, reason: str) -> QueuedJob:
        return QueuedJob(name, "x", state, reason, "")

    queue = {
        "a": [job("70_0", "RUNNING", "None")],
        "b": [job("70_1", "PENDING", "JobArrayTaskLimit")],
        "c": [job("71_0", "PENDING", "Dependency")],
        "d": [job("72_0", "RUNNING", "None")],
    }
    raise_throttle(queue, 2)
    assert not (commands / "asked").exists(), "two are running"
    raise_throttle(queue, 4)
    assert (commands / "asked").read_text() == "update JobId=70 ArrayTaskThrottle=3\n"
    assert "job 70: at most 3 of its tasks at a time" in capsys.readouterr().out
