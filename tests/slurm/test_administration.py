"""What administrators and users do to jobs by hand: suspend, hold, other time limits, requeuehold, a moved folder."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hpc.submission.submissions import submissions
from relay.config import yaml_file
from relay.runs.rundir import RunDir
from relay.runs.sweeps import sweeps
from src.config.schema import Config
from tests.conftest import SMALL, assert_same_run, run_python
from tests.slurm.conftest import PROFILE, Cluster, on_profile, wait_for

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(600)]

Launch = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def launch(one_machine: Cluster, small: Callable[..., Config], tmp_path: Path) -> Iterator[Launch]:
    """`python -m hpc.launch WORDS` for a grid of one long cell; the rest of it is cancelled at the end."""
    changes = {"hparams": {"epochs": 4000, "lr": [0.001]}, "checkpoint__every_steps": 60}
    (tmp_path / "long.yaml").write_text(yaml_file.dump_yaml(small(**changes).to_dict()))
    (tmp_path / "profile.yaml").write_text(yaml_file.dump_yaml(dict(PROFILE)))

    def call(*words: str, **env: str) -> subprocess.CompletedProcess[str]:
        given = [*on_profile(tmp_path / "profile.yaml", *words), "--config", str(tmp_path / "long.yaml")]
        return run_python("hpc.launch", *given, env=one_machine.env | env)

    yield call
    call("cancel", "all")


def the_run(tmp_path: Path) -> RunDir:
    return sweeps(tmp_path / "runs")[-1].runs()[0]


def working(run: RunDir, attempt: int = 1) -> Callable[[], bool]:
    """Whether this attempt has logged some steps."""

    def is_so() -> bool:
        found = run.attempts()
        if len(found) != attempt or found[-1].first_step is None:
            return False
        lines = run.metrics_file.read_text().splitlines() if run.metrics_file.exists() else []
        return bool(len(lines) > found[-1].first_step / SMALL["metrics"]["log_every_steps"] + 3)

    return is_so


def begun(launch: Launch, tmp_path: Path, *words: str) -> tuple[RunDir, str]:
    done = launch("grid", *words)
    assert done.returncode == 0, done.stderr
    run = the_run(tmp_path)
    wait_for("the run works", working(run), 90)
    return run, run.attempts()[-1].job


def held(launch: Launch, tmp_path: Path) -> str:
    """The job of the grid, which waits until it is released."""
    (tmp_path / "profile.yaml").write_text(yaml_file.dump_yaml({**PROFILE, "sbatch": {"hold": True}}))
    done = launch("grid")
    assert done.returncode == 0, done.stderr
    (tmp_path / "profile.yaml").write_text(yaml_file.dump_yaml(dict(PROFILE)))
    return str(submissions(sweeps(tmp_path / "runs")[-1])[-1].job_id)


def test_suspended_held_and_requeued_by_hand(launch: Launch, one_machine: Cluster, tmp_path: Path) -> None:
    run, job = begun(launch, tmp_path)

    def stands_still() -> bool:
        before = run.metrics_file.stat().st_size
        time.sleep(2)
        return run.metrics_file.stat().st_size == before

    one_machine.run(["scontrol", "suspend", job])
    wait_for("it is suspended", stands_still)
    size = run.metrics_file.stat().st_size
    assert "1 in the queue before, 0 submitted" in launch("grid").stdout
    assert "1 run: 1 suspended" in launch("status").stdout
    assert run.metrics_file.stat().st_size == size
    one_machine.run(["scontrol", "resume", job])
    wait_for("it continues", lambda: run.metrics_file.stat().st_size > size, 60)
    one_machine.run(["scancel", "--signal=STOP", job])
    wait_for("it is shown as stopped", lambda: "1 run: 1 stopped" in launch("status").stdout)
    assert "1 in the queue before, 0 submitted" in launch("grid").stdout
    one_machine.run(["scancel", "--signal=CONT", job])
    wait_for("it is shown as running", lambda: "1 run: 1 running" in launch("status").stdout)
    assert len(run.attempts()) == 1

    one_machine.run(["scontrol", "requeuehold", job])
    wait_for("the attempt is closed", lambda: run.attempts()[-1].ended, 90)
    assert run.attempts()[-1].cause == "REQUEUED"
    wait_for("the job is held", lambda: one_machine.job(job)["JobState"] in ("PENDING", "REQUEUE_HOLD"), 60)
    again = launch("grid")
    assert "1 in the queue before, 0 submitted" in again.stdout, "a hold of the administrator's is left alone"
    assert "released" not in again.stdout
    one_machine.run(["scontrol", "release", job])
    wait_for("it works again", working(run, 2), 120)

    # A hold of a job that is requeued by its time limit, and a limit that is made longer in between.
    one_machine.run(["scontrol", "update", f"jobid={job}", "timelimit=60"])
    one_machine.run(["scontrol", "update", f"jobid={job}", "timelimit=1"])
    wait_for("the second attempt is closed", lambda: run.attempts()[-1].ended, 120)
    assert run.attempts()[-1].cause == "TIMEOUT"
    wait_for("the job is back", lambda: one_machine.job(job)["JobState"] == "PENDING", 60)
    one_machine.run(["scontrol", "hold", job])
    assert "1 in the queue before, 0 submitted" in launch("grid").stdout
    assert "who holds it" in launch("status").stdout
    one_machine.run(["scontrol", "update", f"jobid={job}", "timelimit=10"])
    one_machine.run(["scontrol", "release", job])
    wait_for("it works a third time", working(run, 3), 120)
    steps = [(a.first_step, a.last_step) for a in run.attempts()[:-1]]
    assert steps[0][1] == steps[1][0] > 0
    assert run.attempts()[2].first_step == steps[1][1] > steps[1][0]


def test_settings_of_the_user_do_not_hide_the_queue(launch: Launch, one_machine: Cluster, tmp_path: Path) -> None:
    assert launch("grid").returncode == 0
    for name, value in (("SQUEUE_PARTITION", "urgent"), ("SQUEUE_USERS", "nobody"), ("SQUEUE_STATES", "FAILED")):
        assert "1 in the queue before, 0 submitted" in launch("grid", **{name: value}).stdout
    assert "cancelled 1 task" in launch("cancel", "all", SCANCEL_STATE="SUSPENDED", SLURM_TIME_FORMAT="relative").stdout


def test_a_moved_folder_ends_its_tasks_with_a_reason_and_goes_on_from_its_new_place(
    launch: Launch, one_machine: Cluster, tmp_path: Path
) -> None:
    """The jobs that wait know the old path; a symbolic link is another path to the same runs."""
    job = held(launch, tmp_path)
    old, new = tmp_path / "runs", tmp_path / "moved"
    old.rename(new)
    here = ["--set", f"paths.runs_dir={new}"]
    assert "1 in the queue before, 0 submitted" in launch("grid", *here).stdout
    one_machine.run(["scontrol", "release", job])
    wait_for("the task has failed", lambda: one_machine.job(job)["JobState"] == "FAILED", 90)
    shown = launch("status", *here).stdout
    assert "not started" in shown
    assert "its log folder was moved, deleted or full" in shown
    assert sweeps(new)[-1].runs()[0].attempts() == ()
    (tmp_path / "linked").symlink_to(new)
    again = launch("grid", "--set", f"paths.runs_dir={tmp_path / 'linked'}")
    assert "1 submitted" in again.stdout, again.stdout + again.stderr
    run = sweeps(new)[-1].runs()[0]
    wait_for("the run works", working(run), 90)
    assert "1 in the queue before, 0 submitted" in launch("grid", *here).stdout
    assert "cancelled 1 task" in launch("cancel", "all", *here).stdout
    wait_for("the attempt is closed", lambda: run.attempts()[-1].ended, 60)
    assert run.attempts()[-1].cause == "CANCELLED"


def test_a_task_above_its_memory_is_out_of_memory(
    launch: Launch, one_machine: Cluster, small: Callable[..., Config], tmp_path: Path
) -> None:
    if not (one_machine.scratch / "cgroup.conf").is_file():
        pytest.skip("no cgroups can be made here")
    large = {"model__branch_channels": [1024] * 3, "model__stem_channels": 1024, "train__batch_size": 96}
    (tmp_path / "long.yaml").write_text(yaml_file.dump_yaml(small(hparams={"lr": [0.001]}, **large).to_dict()))
    (tmp_path / "profile.yaml").write_text(yaml_file.dump_yaml({**PROFILE, "mem_gb": 0.75}))
    assert launch("grid").returncode == 0
    wait_for("the task has ended", lambda: "1 out_of_memory" in launch("status").stdout, 90)
    shown = launch("grid")
    assert "OUT_OF_MEMORY" in shown.stdout, shown.stdout + shown.stderr
    assert "0 submitted" in shown.stdout
    assert the_run(tmp_path).attempts()[-1].cause == "OUT_OF_MEMORY"


def test_a_grid_has_the_same_numbers_with_and_without_slurm(
    launch: Launch, small: Callable[..., Config], tmp_path: Path
) -> None:
    """Where it is given the same number of CPUs; with wide layers, whose sums differ with another number."""
    wide = {"model__stem_channels": 32, "model__branch_channels": [32] * 3, "train__batch_size": 32}
    content = small(hparams={"epochs": 4, "lr": [0.01]}, **wide).to_dict()
    (tmp_path / "long.yaml").write_text(yaml_file.dump_yaml(content))
    (tmp_path / "profile.yaml").write_text(yaml_file.dump_yaml({**PROFILE, "cpus": 2}))
    assert launch("grid").returncode == 0
    content["paths"]["runs_dir"] = str(tmp_path / "here")
    (tmp_path / "here.yaml").write_text(yaml_file.dump_yaml(content))
    (tmp_path / "local.yaml").write_text(yaml_file.dump_yaml({"executor": "local", "cpus": 2}))
    here = ["--config", str(tmp_path / "here.yaml"), "--cluster", str(tmp_path / "local.yaml")]
    assert run_python("hpc.launch", "grid", *here).returncode == 0
    wait_for("the task is done", lambda: the_run(tmp_path).result() is not None, 90)
    assert_same_run(the_run(tmp_path), sweeps(tmp_path / "here")[0].runs()[0])


def test_several_partitions_are_one_queue(launch: Launch, one_machine: Cluster, tmp_path: Path) -> None:
    (tmp_path / "profile.yaml").write_text(yaml_file.dump_yaml({**PROFILE, "partition": "gpu,urgent"}))
    assert launch("grid").returncode == 0
    assert "1 in the queue before, 0 submitted" in launch("grid").stdout
    wait_for("the run works", working(the_run(tmp_path)), 90)
    assert "cancelled 1 task" in launch("cancel", "all").stdout


def test_a_waiting_task_whose_code_is_gone_trains_nothing(launch: Launch, one_machine: Cluster, tmp_path: Path) -> None:
    job = held(launch, tmp_path)
    (code,) = (path for path in sweeps(tmp_path / "runs")[-1].code.iterdir() if path.is_dir())
    engine = code / "src" / "training" / "trainer.py"
    engine.write_text(engine.read_text() + "\n# another engine\n")
    one_machine.run(["scontrol", "release", job])
    wait_for("the task has failed", lambda: one_machine.job(job)["JobState"] == "FAILED", 90)
    shown = launch("status").stdout
    assert "not started" in shown
    assert "the code of these runs is gone or was changed" in shown
    assert the_run(tmp_path).attempts() == ()
    refused = launch("grid")
    assert refused.returncode == 2
    assert "src/training/trainer.py was changed" in refused.stderr
    assert "Traceback" not in refused.stderr
    again = launch("grid", "--new-code")
    assert again.returncode == 0, again.stderr
    wait_for("the run works", working(the_run(tmp_path)), 90)


@pytest.fixture
def full(tmp_path: Path) -> Iterator[Path]:
    """A folder on a disk of its own that has no room left."""
    folder = tmp_path / "full"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4k", "tmpfs", str(folder)], check=False)
    if mounted.returncode != 0:
        pytest.skip("no file system can be mounted here")
    try:
        (folder / "filler").write_bytes(bytes(4096))
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def test_a_site_without_requeue_says_how_to_continue(launch: Launch, one_machine: Cluster, tmp_path: Path) -> None:
    disabled = {**PROFILE, "sbatch": {"requeue": False, "no-requeue": True}}
    (tmp_path / "profile.yaml").write_text(yaml_file.dump_yaml(disabled))
    run, job = begun(launch, tmp_path)
    one_machine.run(["scancel", "--signal=USR2", job])
    wait_for("the task has failed", lambda: one_machine.job(job)["JobState"] == "FAILED", 90)
    shown = launch("status").stdout
    assert "not requeued: scontrol: " in shown
    assert "neither done nor queued: 1 run; to submit: " in shown
    logs = launch("logs").stdout
    assert "the state is saved; to continue: " in logs
    assert "Traceback" not in logs
    saved = run.attempts()[-1].last_step
    assert "1 submitted" in launch("grid").stdout
    wait_for("the run works", working(run, 2), 90)
    assert run.attempts()[-1].first_step == saved > 0


def test_a_full_log_folder_keeps_no_run_from_its_start(launch: Launch, full: Path, tmp_path: Path) -> None:
    begun(launch, tmp_path, "--set", f"paths.logs_dir={full}")


def test_a_waiting_task_does_not_need_the_log_folder(launch: Launch, one_machine: Cluster, tmp_path: Path) -> None:
    job = held(launch, tmp_path)
    assert sorted(path.name for path in (tmp_path / "logs" / the_run(tmp_path).sweep().name).iterdir())
    shutil.rmtree(tmp_path / "logs")
    one_machine.run(["scontrol", "release", job])
    wait_for("the run works", working(the_run(tmp_path)), 90)
    assert "step" in launch("logs").stdout


def test_a_full_temporary_folder_keeps_no_run_from_its_end(full: Path, tmp_path: Path) -> None:
    content = {**SMALL, "paths": {f"{name}_dir": str(tmp_path / name) for name in ("runs", "artifacts", "logs")}}
    content["dataset"] = {**SMALL["dataset"], "root": str(tmp_path / "data")}
    (tmp_path / "small.yaml").write_text(yaml_file.dump_yaml(content))
    done = run_python("src.train", "--config", str(tmp_path / "small.yaml"), env={"TMPDIR": str(full)})
    assert done.returncode == 0, done.stderr
