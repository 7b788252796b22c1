"""What a launcher does with each run, and what `status` shows: real run directories, stand-ins for SLURM's answers."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hpc.monitor.status_rows import sweep_status
from hpc.recovery.reconcile import classify_runs, reset_budgets
from hpc.slurm import Queue, QueuedJob
from hpc.submission.forecast import forecast_of, refuse_above, warn_of_short_lead
from hpc.submission.profile import Profile
from hpc.submission.queue_cleanup import surplus_tasks
from hpc.submission.submissions import Submission, match_queue
from relay.errors import RunError
from relay.runs.rundir import RunDir, SweepDir
from relay.runs.sweeps import open_sweep
from src.config.schema import Config
from src.requests import grid_request, train_request
from tests.conftest import fake

SLICE = "gpu:1g.12gb:1"
PROFILE = Profile(executor="slurm", slice="1g.12gb", signal_lead_s=90, max_parallel=2)


def in_squeue(job_id: str, name: str = "relay-x.1", state: str = "PENDING") -> QueuedJob:
    return QueuedJob(job_id, name, state, "Resources", "1:00:00")


@pytest.fixture
def sweep(small: Callable[..., Config]) -> SweepDir:
    return open_sweep(grid_request(small()))[0]


def record(run: RunDir, cause: str | None, start: float = 100.0, end: float = 200.0, **facts: Any) -> None:
    number = len(run.attempts()) + 1
    run.record_attempt(number, start=start, job=f"7_{number}", cluster="c", slice=SLICE)
    if cause:
        run.record_attempt(number, end=end, cause=cause, **facts)


def test_tasks_are_found_by_their_jobs_name_also_without_an_id() -> None:
    made = [Submission("relay-x.1", (("a",), ("b",), ("c",)), None), Submission("relay-x.2", (("b",),), "77")]
    known = [in_squeue("70_0"), in_squeue("70_2"), in_squeue("77", "relay-x.2"), in_squeue("1_9", "other")]
    found = match_queue(made, known)
    assert ids(found) == {"a": ["70_0"], "c": ["70_2"], "b": ["77"]}


def test_all_runs_of_a_task_are_in_its_job() -> None:
    found = match_queue([Submission("relay-x.1", (("a", "b"), ("c",)), "70")], [in_squeue("70_0"), in_squeue("70_1")])
    assert ids(found) == {"a": ["70_0"], "b": ["70_0"], "c": ["70_1"]}


def test_all_tasks_of_a_run_that_are_not_over_are_found() -> None:
    made = [Submission("relay-x.1", (("a",),), "70"), Submission("relay-x.2", (("a",),), "71")]
    assert ids(match_queue(made, [in_squeue("70", state="RUNNING"), in_squeue("71", "relay-x.2", "FAILED")])) == {
        "a": ["70"]
    }
    # An sbatch whose answer came late was sent again: two jobs of one name.
    twice = [in_squeue("70"), in_squeue("72", state="RUNNING"), in_squeue("71", "relay-x.2")]
    assert ids(match_queue(made, twice)) == {"a": ["72", "70", "71"]}
    assert match_queue(made, [in_squeue("71", "relay-x.2", "FAILED"), in_squeue("70", state="NODE_FAIL")]) == {}


def test_a_task_is_surplus_where_each_of_its_runs_has_another(sweep: SweepDir) -> None:
    first, second, third, _ = (run.name for run in sweep.runs())
    tasks = ((first, second), (third,))
    made = [Submission("relay-x.1", tasks, "70")]
    assert surplus_tasks(sweep, match_queue(made, [in_squeue("70_0"), in_squeue("70_1")])) == []
    both_wait = [in_squeue("70_0"), in_squeue("70_1"), in_squeue("71_0"), in_squeue("71_1")]
    assert surplus_tasks(sweep, match_queue(made, both_wait)) == ["71_0", "71_1"]
    later_runs = [in_squeue("70_0"), in_squeue("70_1"), in_squeue("71_0", state="RUNNING"), in_squeue("71_1")]
    assert surplus_tasks(sweep, match_queue(made, later_runs)) == ["70_0", "71_1"]
    # Both run: the one that has the run is kept, the other waits for it.
    for name in (first, second):
        sweep.run(name).record_attempt(1, start=1.0, job="71_0", cluster="c")
    both_run = [in_squeue("70_0", state="RUNNING"), in_squeue("71_0", state="RUNNING")]
    assert surplus_tasks(sweep, match_queue(made, both_run)) == ["70_0"]


def ids(found: Queue) -> dict[str, list[str]]:
    return {name: [job.job_id for job in jobs] for name, jobs in found.items()}


def test_each_run_is_in_one_list(sweep: SweepDir, commands: Path) -> None:
    done, queued_tasks, crashed, fresh = sweep.runs()
    done.write_result({"steps": 3})
    record(crashed, "CRASHED", error="no images")
    with fresh.lock():
        by_state = classify_runs(sweep, {queued_tasks.name: in_squeue("8")})
    assert (by_state.done, by_state.queued, by_state.running_elsewhere) == ([done], [queued_tasks], [fresh])
    assert {run: found.cause for run, found in by_state.blocked.items()} == {crashed: "CRASHED"}
    assert classify_runs(sweep, {}).to_submit == [queued_tasks, fresh]
    queued_tasks.cancel()
    by_state = classify_runs(sweep, {})
    assert (by_state.cancelled, by_state.to_submit) == ([queued_tasks], [fresh])
    assert classify_runs(sweep, {queued_tasks.name}).queued == [queued_tasks], "a task of it ends still"
    assert [row.state for row in sweep_status(sweep, {}).rows] == ["done", "cancelled", "crashed", "new"]


def test_attempts_that_left_no_word_are_named_by_accounting_in_one_question(sweep: SweepDir, commands: Path) -> None:
    memory, node, killed, fresh = sweep.runs()
    start = time.time() - 500
    for number, run in enumerate((memory, node, killed), start=1):
        run.record_attempt(1, start=start, job=f"7_{number}", cluster="c")
    began = time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(start - 5))
    ended = time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(start + 60))
    words = ["OUT_OF_MEMORY", "NODE_FAIL", "FAILED"]
    lines = [f"7_{number}|c|{word}|{began}|{ended}" for number, word in enumerate(words, 1)]
    answer = "\n".join(lines)
    fake(commands, "sacct", f'echo "$@" >> "{commands}/asked"\ncat <<END\n{answer}\nEND')
    shown = sweep_status(sweep, {})
    assert [row.state for row in shown.rows] == ["out_of_memory", "node_fail", "killed", "new"]
    assert all(not run.attempts()[-1].ended for run in (memory, node, killed)), "status writes nothing"
    by_state = classify_runs(sweep, {})
    assert {run: found.cause for run, found in by_state.blocked.items()} == {memory: "OUT_OF_MEMORY"}
    assert by_state.to_submit == [node, killed, fresh]
    assert by_state.failed() == [memory, node, killed]
    assert [run.attempts()[-1].cause for run in (memory, node, killed)] == ["OUT_OF_MEMORY", "NODE_FAIL", "KILLED"]
    assert node.attempts()[-1].end == pytest.approx(start + 60, abs=1)
    assert len((commands / "asked").read_text().splitlines()) == 2
    reset_budgets(by_state.failed(), 1.0)
    assert classify_runs(sweep, {}).to_submit == sweep.runs()


def test_what_its_user_stopped_is_missing_and_not_failed(sweep: SweepDir) -> None:
    record(sweep.runs()[0], "CANCELLED", first_step=0, last_step=0)
    record(sweep.runs()[1], "TIMEOUT", first_step=0, last_step=4)
    by_state = classify_runs(sweep, {})
    assert by_state.to_submit == sweep.runs()
    assert by_state.failed() == [sweep.runs()[1]]


def test_status_shows_who_runs_who_is_next_and_what_to_do(sweep: SweepDir) -> None:
    first, second, stuck, crashed = sweep.runs()
    record(first, None, start=time.time() - 3600)
    for _ in range(2):
        record(stuck, "TIMEOUT", first_step=0, first_step_at=100.0, last_step=0, total_steps=12)
    record(crashed, "CRASHED", error="no images\nat all")
    shown = sweep_status(sweep, {run.name: [in_squeue("7_1", state="RUNNING")] for run in (first, second)})
    assert [row.state for row in shown.rows] == ["running", "waiting in task", "no_progress", "crashed"]
    assert [row.error for row in shown.rows] == [None, None, None, "no images at all"]
    summary = shown.summary()
    assert "1 CRASHED" in summary
    assert "no images" in summary
    assert f"python -m hpc.launch retry {sweep.name} --failed" in summary
    assert shown.used_s == pytest.approx(3600 + 300, abs=5)
    assert shown.wasted_s == 200.0
    assert shown.in_flight == 2


def test_a_claim_of_a_job_that_is_gone_does_not_keep_its_run_from_being_submitted(
    sweep: SweepDir, commands: Path
) -> None:
    fake(commands, "sacct", "exit 0")
    job, process = sweep.runs()[:2]
    job.record_attempt(1, start=1.0, job="7_1", cluster="c")
    process.record_attempt(1, start=1.0, job="7_1")
    with job.lock(), process.lock():
        by_state = classify_runs(sweep, {})
    assert by_state.running_elsewhere == [process]
    assert job in by_state.to_submit


def test_a_done_run_whose_task_goes_on_is_counted_once(sweep: SweepDir) -> None:
    done, queued_tasks, idle, _ = sweep.runs()
    done.write_result({"steps": 3})
    record(idle, "CANCELLED")
    shown = sweep_status(sweep, {run.name: [in_squeue("7_1", state="RUNNING")] for run in (done, queued_tasks)})
    assert shown.in_flight == 1
    assert "neither done nor queued: 2 runs" in shown.summary()


def test_the_used_time_says_how_much_of_it_was_overhead(sweep: SweepDir) -> None:
    first, second, *_ = sweep.runs()
    first.record_attempt(1, start=0.0, first_step_at=360.0, end=3600.0, cause="DONE", job="7_0", job_start=0.0)
    first.write_result({"steps": 3})
    second.record_attempt(1, start=3960.0, first_step_at=4320.0, end=7200.0, cause="DONE", job="7_0", job_start=0.0)
    second.write_result({"steps": 3})
    assert "used: 2 slice-hours, 0.3 of them overhead (15 %)" in sweep_status(sweep, {}).summary()
    # Asked for one run, the time of the other one of its task is not its own.
    assert sweep_status(sweep, {}, only=second.name).used_s == 7200 - 3960


def test_a_state_that_nobody_knows_is_shown_as_it_is(sweep: SweepDir) -> None:
    shown = sweep_status(sweep, {run.name: [in_squeue("7", state="QUANTUM_HOLD")] for run in sweep.runs()})
    assert {row.state for row in shown.rows} == {"QUANTUM_HOLD"}


def test_a_run_that_diverged_early_did_not_do_all_its_work(small: Callable[..., Config]) -> None:
    config = small()
    run = open_sweep(train_request(config))[0].runs()[0]
    run.record_attempt(1, start=0.0, end=3600.0, cause="DONE", slice=SLICE, last_step=6, total_steps=18)
    run.write_result({"outcome": "diverged", "steps": 6})
    grid = grid_request(config)
    # A third of 3 epochs took the hour; a cell has 2.
    assert forecast_of(grid, grid.cells, PROFILE).slice_hours == pytest.approx(2 * 2)


def test_runs_that_share_a_slice_cost_a_part_of_it_each(small: Callable[..., Config]) -> None:
    config = small()
    run = open_sweep(train_request(config))[0].runs()[0]
    run.record_attempt(1, start=0.0, end=7200.0, cause="DONE", slice=SLICE, at_once=4)
    run.record_attempt(1, first_step=0, last_step=18, total_steps=18)
    run.write_result({"steps": 18})
    grid = grid_request(config)
    shared = PROFILE.model_copy(update={"cells_per_job": 4, "runs_per_slice": 4, "max_parallel": 7})
    forecast = forecast_of(grid, grid.cells, shared)
    assert forecast.slice_hours == pytest.approx(2 * 4800 / 3600 / 4), "two of its shape, 2 epochs instead of 3"
    assert forecast.at_a_time == 1, "four runs are one task"


def test_the_forecast_comes_from_runs_of_this_shape_on_this_slice(
    small: Callable[..., Config], capsys: pytest.CaptureFixture[str]
) -> None:
    config = small()
    grid = grid_request(config)
    nothing = forecast_of(grid, grid.cells, PROFILE)
    assert nothing.slice_hours is None
    assert "no measurement" in str(nothing)
    run = open_sweep(train_request(config))[0].runs()[0]
    # 3 epochs in 7200 s on the slice, after another one elsewhere that must not count.
    run.record_attempt(1, start=0.0, end=99999.0, cause="CANCELLED", slice="gpu:other:1")
    run.record_attempt(2, start=0.0, end=7200.0, cause="DONE", slice=SLICE, save_s=50.0)
    run.record_attempt(2, first_step=0, last_step=9, total_steps=18)
    half = forecast_of(grid, grid.cells, PROFILE)
    assert half.slice_hours == pytest.approx(2 * 2 * 4800 / 3600), "half of it took as long"
    run.record_attempt(3, start=0.0, end=1.0, cause="KILLED", slice=SLICE, last_step=9)
    assert forecast_of(grid, grid.cells, PROFILE).slice_hours == pytest.approx(half.slice_hours, rel=0.01)
    run.record_attempt(3, start=1.0)
    run.write_result({"steps": 18})
    # The grid's cells have 2 epochs; those with the training's two modules are of its shape.
    forecast = forecast_of(grid, grid.cells, PROFILE)
    assert (forecast.measured, forecast.unmeasured) == (2, 2)
    assert forecast.slice_hours == pytest.approx(2 * 2 * 2400 / 3600)
    assert "2.7 slice-hours for 2 runs, about 1.3 h with 2 at a time" in str(forecast)
    with pytest.raises(RunError, match=r"--max-slice-hours 2: .*2\.7 slice-hours"):
        refuse_above(2, forecast)
    refuse_above(3, forecast)
    assert "does not cover 2 runs" in capsys.readouterr().err
    assert forecast_of(grid, grid.cells, Profile(executor="local")).slice_hours is None
    warn_of_short_lead(PROFILE, forecast)
    assert "set it to 110 or more" in capsys.readouterr().err
    warn_of_short_lead(PROFILE.model_copy(update={"signal_lead_s": 110}), forecast)
    assert capsys.readouterr().err == ""
    capsys.readouterr()
    short = PROFILE.model_copy(update={"signal_lead_s": 30})
    warn_of_short_lead(short, replace(forecast, save_s=0.004))
    warning = capsys.readouterr().err
    assert (
        "took less than 0.1 s to stop and save, and a margin of a minute is recommended; set it to 61 or more"
        in warning
    )
