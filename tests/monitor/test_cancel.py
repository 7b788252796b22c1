"""A cancel holds: it stops every task of the runs that are named, and nothing but their user starts them again."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hpc import slurm
from hpc.monitor.cancel import cancel_runs
from hpc.monitor.logs import last_line, show_logs
from hpc.monitor.status import show_status
from hpc.node import task as lifecycle
from hpc.node.task import execute_runs, requeue_if_allowed
from hpc.pipeline.directory import make_pipeline
from hpc.recovery.diagnosis import StopRequest
from hpc.submission import queue_cleanup
from hpc.submission.execute import submit_missing
from hpc.submission.here import execute_here
from hpc.submission.plan import job_name
from hpc.submission.profile import Profile
from hpc.submission.site import SiteLimits
from jobs.grid import GRID
from relay.errors import RunError
from relay.files import append_lines
from relay.results.tables.table import read_table
from relay.runs.lifecycle import Outcome
from relay.runs.names import find_named
from relay.runs.rundir import RunDir, SweepDir
from relay.runs.sweeps import open_sweep
from src.config.schema import Config
from src.requests import grid_request, lr_sweep_request
from tests.conftest import asked, fake

PROFILE = Profile(executor="slurm", slice="1g.12gb", max_parallel=2)
SITE = SiteLimits("gpu:1g.12gb:1", 1001)


@pytest.fixture
def sweep(small: Callable[..., Config]) -> SweepDir:
    return open_sweep(grid_request(small()))[0]


@pytest.fixture
def queue(sweep: SweepDir, commands: Path) -> Path:
    """What squeue answers; scancel writes down what it is given."""
    tasks = [[run.name] for run in sweep.runs()]
    append_lines(sweep.submissions_file, [{"job_name": job_name(sweep.path, 1), "tasks": tasks}])
    path = commands / "queue"
    path.touch()
    fake(commands, "squeue", f"sed 's/NAME/{job_name(sweep.path, 1)}/' '{path}'")
    fake(commands, "scancel", f'echo "$@" >> "{commands}/cancelled"')
    return path


def waiting(*ids: str, state: str = "PENDING") -> str:
    return "".join(f"{job}|NAME|{state}|Resources|1:00\n" for job in ids)


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the runs that are submitted."""
    names: list[str] = []

    def take(name: str, script: Path) -> str:
        names.extend(Path(path).name for runs in json.loads(script.with_suffix(".json").read_text()) for path in runs)
        return "90"

    monkeypatch.setattr("hpc.sbatch.submit", take)
    return names


def test_a_cancel_stops_every_task_of_its_runs(
    small: Callable[..., Config], sweep: SweepDir, queue: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # The array was taken twice; the second one trains.
    queue.write_text(waiting("70_0", "70_1", "70_2", "70_3") + waiting("71_0", "71_1", state="RUNNING"))
    cancel_runs(small().paths, sweep.runs()[0].label)
    assert (queue.parent / "cancelled").read_text() == "--quiet 71_0 70_0\n"
    said = capsys.readouterr().out
    assert "cancelled 2 tasks" in said
    assert f"  {sweep.runs()[0].label}\n" in said
    cancel_runs(small().paths, sweep.name)
    assert (queue.parent / "cancelled").read_text().split("\n")[1].split()[1:] == [
        *("71_0", "70_0", "71_1", "70_1", "70_2", "70_3")
    ]


def test_a_task_goes_on_with_the_runs_that_were_not_cancelled(
    small: Callable[..., Config], sweep: SweepDir, queue: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = sweep.runs()
    sweep.submissions_file.unlink()
    append_lines(
        sweep.submissions_file, [{"job_name": job_name(sweep.path, 1), "tasks": [[runs[0].name, runs[1].name]]}]
    )
    queue.write_text(waiting("70_0", state="RUNNING"))
    cancel_runs(small().paths, runs[0].label)
    assert not (queue.parent / "cancelled").exists()
    assert [run.cancelled() for run in runs[:2]] == [True, False]
    said = capsys.readouterr().out
    assert f"cancelled 1 run of a task\n  {runs[0].label}\n" in said
    assert f"the task goes on with its other runs:\n  {runs[1].label}\n" in said
    # The last one takes the task with it.
    cancel_runs(small().paths, runs[1].label)
    assert (queue.parent / "cancelled").read_text() == "--quiet 70_0\n"


def test_what_is_cancelled_is_submitted_by_its_user_alone(
    small: Callable[..., Config], sweep: SweepDir, queue: Path, sent: list[str]
) -> None:
    config, runs = small(), sweep.runs()
    cancel_runs(config.paths, runs[1].label)
    submit_missing(sweep, PROFILE, SITE, config.paths, by_user=False)
    assert sent == [run.name for run in runs if run != runs[1]]
    sent.clear()
    submit_missing(sweep, PROFILE, SITE, config.paths)
    assert runs[1].name in sent
    assert not runs[1].cancelled()


def test_a_cancel_holds_whatever_ended_the_run_before(
    small: Callable[..., Config], sweep: SweepDir, queue: Path, sent: list[str]
) -> None:
    config, runs = small(), sweep.runs()
    for run, cause in zip(runs, ("TIMEOUT", "PREEMPTED", "KILLED", "NODE_FAIL"), strict=True):
        run.record_attempt(1, start=1.0, job="70_0", cluster="c")
        run.record_attempt(1, end=2.0, cause=cause, first_step=0, last_step=3)
    queue.write_text(waiting("70_0", "70_1"))
    cancel_runs(config.paths, "all")
    queue.write_text("")
    submit_missing(sweep, PROFILE, SITE, config.paths, by_user=False)
    assert sent == []


def test_a_surplus_array_is_cancelled_by_the_next_command(
    small: Callable[..., Config], sweep: SweepDir, queue: Path, sent: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    queue.write_text(waiting("70_0", "70_1", "70_2", "70_3", "71_0", "71_1", "71_2", "71_3"))
    submit_missing(sweep, PROFILE, SITE, small().paths)
    assert (queue.parent / "cancelled").read_text() == "--quiet 71_0 71_1 71_2 71_3\n"
    assert "4 tasks too many in the queue; cancelled: 71_0" in capsys.readouterr().out
    assert sent == []


def test_a_task_that_ended_before_its_run_began_says_why(
    small: Callable[..., Config], sweep: SweepDir, queue: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config, runs = small(), sweep.runs()
    append_lines(sweep.submissions_file, [{"job_name": job_name(sweep.path, 1), "job_id": "70"}])
    queue.write_text(waiting("70_3"))
    # The second one was to come back after its time limit, the third one was a crash that said so itself.
    for number, end in ((1, {"cause": "TIMEOUT"}), (2, {"cause": "CRASHED", "error": "its own"})):
        runs[number].record_attempt(1, start=1.0, job=f"70_{number}", cluster="c")
        runs[number].record_attempt(1, end=2.0, **end, first_step=0, last_step=1)
    folder = sweep.jobs
    folder.mkdir()
    for number in range(3):
        (folder / f"70_{number}_0_log.err").write_text(f"first line\nerror: no code {number}\n\n")
    show_status(config.paths, sweep.name)
    shown = [line for line in capsys.readouterr().out.splitlines() if "k=00" in line]
    assert "not started" in shown[0]
    assert "error: no code 0" in shown[0]
    assert "not started" in shown[1]
    assert "error: no code 1" in shown[1]
    assert "crashed" in shown[2]
    assert "its own" in shown[2]
    assert "queued" in shown[3]


def test_a_task_that_ended_before_its_run_began_is_not_blamed_for_what_came_after(
    small: Callable[..., Config], sweep: SweepDir, queue: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config, (first, second, third, _) = small(), sweep.runs()
    append_lines(sweep.submissions_file, [{"job_name": job_name(sweep.path, 1), "job_id": "70"}])
    # Begun by its task, then on this machine; only on this machine, after the task and before it.
    first.record_attempt(1, start=1.0, end=2.0, job="70_0", cluster="c", cause="CRASHED", first_step=0, last_step=1)
    first.record_attempt(2, start=3.0, end=4.0, job="555", cause="CRASHED", error="of here", first_step=1, last_step=2)
    second.record_attempt(1, start=3.0, end=4.0, job="556", cause="CRASHED", error="of here", first_step=0, last_step=2)
    third.record_attempt(1, start=-1.0, end=0.0, job="557", cause="CRASHED", error="of here", first_step=0, last_step=2)
    show_status(config.paths, sweep.name)
    shown = [line for line in capsys.readouterr().out.splitlines() if "k=00" in line]
    assert ["of here" in line for line in shown[:2]] == [True, True]
    assert ["not started" in line for line in shown[:4]] == [False, False, True, True]


@pytest.fixture
def requeued(monkeypatch: pytest.MonkeyPatch) -> Any:
    asked: list[str] = []
    monkeypatch.setattr(lifecycle, "_requeue", lambda: asked.append("requeue"))
    before = {number: signal.getsignal(number) for number in (signal.SIGUSR2, signal.SIGTERM, signal.SIGINT)}
    yield asked
    for number, handler in before.items():
        signal.signal(number, handler)


def test_a_task_does_not_begin_a_cancelled_run_and_executes_the_others(sweep: SweepDir, requeued: list[str]) -> None:
    first, second = sweep.runs()[:2]
    first.cancel()
    assert execute_runs([first, second]) == {first.label: "CANCELLED", second.label: "DONE"}
    assert first.attempts() == ()


def test_a_stopped_task_is_not_requeued_for_a_cancelled_run(sweep: SweepDir, requeued: list[str]) -> None:
    run = sweep.runs()[0]
    run.cancel()
    requeue_if_allowed([run], "TIMEOUT", StopRequest())
    assert requeued == []
    run.lift_cancel()
    with pytest.raises(SystemExit):
        requeue_if_allowed([run], "TIMEOUT", StopRequest())
    assert requeued == ["requeue"]


def test_a_task_that_slurm_has_put_back_does_not_requeue_its_next_execution(
    sweep: SweepDir, requeued: list[str], commands: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next execution may run already, and to requeue the job again would stop it."""
    monkeypatch.setenv("SLURM_JOB_ID", "70")
    fake(commands, "scontrol", "echo 'JobId=70 JobState=RUNNING Restarts=1'")
    fake(commands, "sacct", 'echo "70|c|NODE_FAIL|$(date +%FT%T -d "10 minutes ago")|$(date +%FT%T)"')
    stop = StopRequest()
    assert stop.cause() == "NODE_FAIL"
    requeue_if_allowed(sweep.runs(), "NODE_FAIL", stop)
    assert requeued == []


def test_a_grid_in_the_foreground_passes_over_what_is_cancelled_meanwhile(sweep: SweepDir) -> None:
    executed: list[str] = []
    second = sweep.runs()[1]
    second.cancel()  # Before the command, which asks for it again.

    def execute(run: RunDir, *_: Any) -> Outcome:
        executed.append(run.name)
        sweep.runs()[2].cancel()
        run.write_result({"steps": 1})
        return Outcome("done", 0, 1, 1)

    with pytest.raises(SystemExit):
        execute_here(sweep, replace(GRID, execute=execute))
    assert executed == [run.name for number, run in enumerate(sweep.runs()) if number != 2]


def test_an_exact_name_wins_then_the_only_part(small: Callable[..., Config]) -> None:
    config = small(lr_finder__seeds=[1, 10, 11])
    runs_dir = Path(config.paths.runs_dir)
    sweep = open_sweep(lr_sweep_request(config))[0]
    other = open_sweep(grid_request(config))[0]
    assert find_named(runs_dir, f"{sweep.name}/seed=1") == (sweep, sweep.run("seed=1"))
    assert find_named(runs_dir, "seed=1") == (sweep, sweep.run("seed=1"))
    assert find_named(runs_dir, "seed=10") == (sweep, sweep.run("seed=10"))
    assert find_named(runs_dir, "lr_find") == (sweep, None)
    assert find_named(runs_dir, str(sweep.run("seed=11").path)) == (sweep, sweep.run("seed=11"))
    assert find_named(runs_dir, f"{other.name}/") == (other, None)
    assert find_named(runs_dir, None) == (other, None)
    for name in ("seed", f"{sweep.name}/seed=", "lr_finder/seed"):
        with pytest.raises(RunError, match=r"3 have that in their name: .*/seed=1, .*/seed=10, .*give one of them in"):
            find_named(runs_dir, name)
    with pytest.raises(RunError, match="2 have that in their name"):
        find_named(runs_dir, "_2")
    with pytest.raises(RunError, match="no sweep and no run has that in its name"):
        find_named(runs_dir, "seed=12")


def test_a_tag_means_its_sweep_and_none_whose_tag_only_begins_so(small: Callable[..., Config]) -> None:
    first = open_sweep(grid_request(small(hparams={"lr": [0.1], "tag": "ablation"})))[0]
    config = small(hparams={"lr": [0.1], "tag": "ablation_2"})
    second = open_sweep(grid_request(config))[0]
    runs_dir = Path(config.paths.runs_dir)
    # "ablation_2" is a part of both names: of ablation_20261127-195043, too.
    assert find_named(runs_dir, "ablation_2") == (second, None)
    assert find_named(runs_dir, "ablation") == (first, None)
    assert find_named(runs_dir, "ablation/k=0") == (first, first.runs()[0])


def test_an_ambiguous_name_cancels_nothing(small: Callable[..., Config], sweep: SweepDir, queue: Path) -> None:
    queue.write_text(waiting("70_0", "70_1"))
    with pytest.raises(RunError, match="4 have that in their name"):
        cancel_runs(small().paths, f"{sweep.name}/k=00")
    assert not (queue.parent / "cancelled").exists()
    assert not any(run.cancelled() for run in sweep.runs())


def test_thousands_of_submissions_are_cancelled_in_one_question(
    small: Callable[..., Config], sweep: SweepDir, queue: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Their names are more than Linux takes in one argument of a command."""
    names = [f"relay-{sweep.name}-0123.{number}" for number in range(3500)]
    run = sweep.runs()[0].name
    append_lines(sweep.submissions_file, [{"job_name": name, "tasks": [[run]]} for name in names])
    jobs = [f"{100_000 + number}|{name}|PENDING|Resources|1:00\n" for number, name in enumerate(names)]
    queue.write_text("".join([*jobs, "7|of-somebody-else|RUNNING|None|1:00\n"]))
    fake(queue.parent, "squeue", f"echo asked >> '{queue}.asked'; cat '{queue}'")
    cancel_runs(small().paths, "all")
    given = (queue.parent / "cancelled").read_text().split()
    assert given == ["--quiet", *(str(100_000 + number) for number in range(3500))]
    assert Path(f"{queue}.asked").read_text() == "asked\n"
    assert "cancelled 3500 tasks" in capsys.readouterr().out


def test_ids_of_any_number_fit_into_commands(commands: Path) -> None:
    ids = [f"{number}_{number}" for number in range(100_000, 130_000)]
    for program in ("scancel", "scontrol", "sacct"):
        fake(commands, program, f"""echo "$@" | tr ', ' '\\n\\n' | grep _ >> '{commands}/{program}.given'""")
    slurm.cancel(ids)
    slurm.release(ids)
    assert slurm.job_history(ids) == []
    for program in ("scancel", "scontrol", "sacct"):
        assert (commands / f"{program}.given").read_text().split() == ids


def test_a_cancel_names_what_it_stops_and_what_it_holds(
    small: Callable[..., Config], sweep: SweepDir, queue: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second, third, fourth = sweep.runs()
    fourth.write_result({"steps": 3})
    queue.write_text(waiting("70_0"))
    cancel_runs(small().paths, sweep.name)
    stopped, _, held = capsys.readouterr().out.partition("not in the queue")
    assert stopped == f"{sweep.name}: cancelled 1 task\n  {first.label}\n"
    assert [second.label in held, third.label in held, fourth.label in held] == [True, True, False]
    queue.write_text("")
    cancel_runs(small().paths, third.label)
    said = capsys.readouterr().out
    assert said == f"{third.label}: nothing is queued or running in {small().paths.runs}\n"


def test_a_cancel_of_all_tells_what_it_did_and_not_what_was_cancelled_before(
    small: Callable[..., Config], sweep: SweepDir, queue: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = open_sweep(lr_sweep_request(small()))[0]
    cancel_runs(small().paths, other.name)
    capsys.readouterr()
    queue.write_text(waiting("70_0"))
    cancel_runs(small().paths, "all")
    said = capsys.readouterr().out
    assert said.startswith("1 sweep: cancelled 1 task\n")
    assert other.name not in said
    queue.write_text("")
    cancel_runs(small().paths, "all")
    assert capsys.readouterr().out == f"0 sweeps: nothing is queued or running in {small().paths.runs}\n"


def test_a_run_of_several_sweeps_is_that_of_the_newest_where_it_is_only_shown(
    small: Callable[..., Config], sweep: SweepDir, queue: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    newest = open_sweep(grid_request(small()), fresh=True)[0]
    part = sweep.runs()[0].name
    show_status(small().paths, part)
    assert "1 run: 1 new" in capsys.readouterr().out
    assert find_named(small().paths.runs, part, newest=True) == (newest, newest.run(part))
    with pytest.raises(RunError, match="2 have that in their name"):
        cancel_runs(small().paths, part)
    # Two runs of one sweep are as ambiguous as ever.
    with pytest.raises(RunError, match="have that in their name"):
        find_named(small().paths.runs, "k=00", newest=True)


def test_a_cancelled_run_that_waited_is_cancelled_in_every_table(
    small: Callable[..., Config], sweep: SweepDir, queue: Path
) -> None:
    first, second = sweep.runs()[:2]
    queue.write_text(waiting("70_0"))
    cancel_runs(small().paths, first.label)
    for state in ("CANCELLED", "COMPLETING"):
        queue.write_text(waiting("70_0", state=state))
        assert [row["state"] for row in read_table(sweep).rows][:2] == ["cancelled", "new"]
    assert second.attempts() == ()


def test_a_task_that_somebody_took_out_of_the_queue_is_shown_as_cancelled(
    small: Callable[..., Config], sweep: SweepDir, queue: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    append_lines(sweep.submissions_file, [{"job_name": job_name(sweep.path, 1), "job_id": "70"}])
    queue.write_text(waiting("70_0", state="CANCELLED") + waiting("70_1", "70_2", "70_3"))
    show_status(small().paths, sweep.name)
    shown = [line for line in capsys.readouterr().out.splitlines() if "k=00" in line]
    assert "cancelled" in shown[0]
    assert "queued" in shown[1]


def test_logs_are_labelled_stdout_before_stderr(
    small: Callable[..., Config], sweep: SweepDir, queue: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config, run = small(), sweep.runs()[0]
    append_lines(sweep.submissions_file, [{"job_name": job_name(sweep.path, 1), "job_id": "70"}])
    folder = sweep.jobs.absolute()
    folder.mkdir()
    (folder / "70_0_0_log.err").write_text("said on stderr\n")
    (folder / "70_0_0_log.out").write_text("said on stdout\n")
    show_logs(config.paths, run.label, follow=False)
    assert capsys.readouterr().out == (
        f"==> {folder}/70_0_0_log.out <==\nsaid on stdout\n\n==> {folder}/70_0_0_log.err <==\nsaid on stderr\n"
    )


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        (
            "no module: cuda\nsrun: error: n1: task 0: Exited with exit code 3\nsrun: Terminating StepId=7.0\n",
            "no module: cuda",
        ),
        ("srun: error: Unable to create step\n", "srun: error: Unable to create step"),
    ],
)
def test_the_reason_is_shown_and_not_how_srun_closes(sweep: SweepDir, written: str, shown: str) -> None:
    sweep.jobs.mkdir()
    (sweep.jobs / "70_0_0_log.err").write_text(written)
    assert last_line(sweep, "70_0") == shown


def test_a_task_that_does_not_come_to_its_end_is_left_to_the_next_call(
    small: Callable[..., Config],
    sweep: SweepDir,
    queue: Path,
    sent: list[str],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(queue_cleanup, "_ENDING_S", 0.4)
    queue.write_text(waiting("70_0", state="COMPLETING"))
    submit_missing(sweep, PROFILE, SITE, small().paths)
    assert sent == [run.name for run in sweep.runs()[1:]]
    said = capsys.readouterr().out
    assert "waiting until tasks have saved and ended: 70_0\n" in said
    assert "70_0: not over after 0 s; to submit their runs later: " in said
    sweep.runs()[0].write_result({"steps": 3})
    submit_missing(sweep, PROFILE, SITE, small().paths)
    assert "waiting" not in capsys.readouterr().out, "a run that is done is not waited for"


@pytest.mark.parametrize("name", ["my-own-job", "relay-another_20300101-000000-0123.1", "relay-", "bash"])
def test_a_job_that_is_not_of_the_sweep_is_left_alone(
    sweep: SweepDir, queue: Path, small: Callable[..., Config], commands: Path, name: str
) -> None:
    """Whoever can write to a run directory could otherwise end any job of the user who cancels."""
    tasks = [[run.name] for run in sweep.runs()]
    append_lines(sweep.submissions_file, [{"job_name": name, "tasks": tasks}, {"job_name": name, "job_id": "90"}])
    pipeline = make_pipeline(asked(small()), fresh=False)
    pipeline.record_job(name, after="grid")
    queue.write_text(waiting("70_0") + f"90_0|{name}|RUNNING|None|1:00\n91|{name}|PENDING|None|1:00\n")
    cancel_runs(small().paths, "all")
    cancelled = (commands / "cancelled").read_text().split()
    assert "70_0" in cancelled
    assert not {"90", "90_0", "91"} & set(cancelled)
