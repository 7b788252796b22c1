"""The local profile for real: workers and their forks, signals, a cap, and runs that come back."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from relay.config import yaml_file
from relay.runs.rundir import RunDir, SweepDir
from relay.runs.sweeps import sweeps
from src.config.schema import Config
from tests.conftest import ROOT, assert_same_run, run_python
from tests.fork_server import fork_python
from tests.terminal import Terminal
from tests.test_hints import hints_in

pytestmark = pytest.mark.timeout(400)
LONG = ["--set", "hparams.epochs=15", "--set", "hparams.num_modules=[1]"]


@pytest.fixture
def profile(tmp_path: Path) -> Path:
    path = tmp_path / "two.yaml"
    path.write_text(yaml_file.dump_yaml({"executor": "local", "max_parallel": 2}))
    return path


@contextmanager
def launched(*words: str, root: Path = ROOT) -> Iterator[subprocess.Popen[str]]:
    """A launcher in a process group of its own, as a terminal makes one."""
    command = [sys.executable, "-m", "hpc.launch", *words]
    env = {**os.environ, "PYTHONPATH": str(root), "COLUMNS": "200"}
    process = subprocess.Popen(
        command, cwd=root, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, process_group=0
    )
    with process:
        try:
            yield process
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)


def wait_until_working(folder: Path, count: int) -> tuple[SweepDir, list[RunDir]]:
    """Until `count` runs at once have logged some steps and are not done."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        for sweep in sweeps(folder)[-1:]:
            working = [
                r for r in sweep.runs() if r.metrics_file.exists() and len(r.metrics_file.read_text().splitlines()) > 2
            ]
            if len(working) >= count and all(r.result() is None for r in working):
                return sweep, working
        time.sleep(0.05)
    pytest.fail("the runs did not get on")


def test_a_grid_has_the_same_numbers_with_the_same_cpus(small: Callable[..., Config], tmp_path: Path) -> None:
    """In the local pool, whatever the environment says, and in the foreground; with wide layers, whose sums differ."""
    wide = {"model__stem_channels": 32, "model__branch_channels": [32] * 3, "train__batch_size": 32}
    content = small(
        hparams={"epochs": 4, "lr": [0.01]}, train__max_steps=3, metrics__log_every_steps=1, **wide
    ).to_dict()
    made = []
    for place in ("pool", "foreground"):
        content["paths"]["runs_dir"] = str(tmp_path / place)
        (tmp_path / f"{place}.yaml").write_text(yaml_file.dump_yaml(content))
        made.append(["--config", str(tmp_path / f"{place}.yaml")])
    (tmp_path / "profile.yaml").write_text(yaml_file.dump_yaml({"executor": "local", "cpus": 2}))
    pool = ["hpc.launch", "grid", *made[0], "--cluster", str(tmp_path / "profile.yaml")]
    assert fork_python(*pool, env={"OMP_NUM_THREADS": "1"}).returncode == 0
    assert run_python("src.grid_search", *made[1], "--here", env={"OMP_NUM_THREADS": "2"}).returncode == 0
    first, second = (sweeps(tmp_path / place)[0].runs()[0] for place in ("pool", "foreground"))
    assert_same_run(first, second)


def test_a_grid_is_interrupted_and_ends_as_one_that_was_not(small_file: Path, profile: Path, tmp_path: Path) -> None:
    words = ["grid", "--config", str(small_file), "--cluster", str(profile), *LONG]
    with launched(*words) as process:
        sweep, working = wait_until_working(tmp_path / "runs", 2)
        attempt = working[0].attempts()[-1]
        os.kill(attempt.pid, signal.SIGUSR2)
        output, _ = process.communicate(timeout=200)
    assert process.returncode == 0, output
    assert f"{working[0].name}: attempt 1 ended by TIMEOUT at step" in output
    causes = {run.name: [a.cause for a in run.attempts()] for run in sweep.runs()}
    assert causes[working[0].name] == ["TIMEOUT", "DONE"]
    assert causes[working[1].name] == ["DONE"]
    assert "best: k=00" in output
    assert len(sweep.table_file("md").read_text().splitlines()) == 4
    elsewhere = ["--set", f"paths.runs_dir={tmp_path / 'straight'}"]
    straight = fork_python("src.grid_search", "--config", str(small_file), *LONG, *elsewhere, "--here")
    assert straight.returncode == 0, straight.stderr
    reference = sweeps(tmp_path / "straight")[-1]
    for run in sweep.runs():
        assert_same_run(reference.run(run.name), run)


def test_ctrl_c_saves_all_and_the_same_command_goes_on(small_file: Path, profile: Path, tmp_path: Path) -> None:
    words = ["grid", "--config", str(small_file), "--cluster", str(profile), *LONG]
    with launched(*words) as process:
        sweep, working = wait_until_working(tmp_path / "runs", 2)
        os.killpg(process.pid, signal.SIGINT)
        output, _ = process.communicate(timeout=60)
    assert process.returncode == 130, output
    (hint,) = hints_in(output)
    assert shlex.split(hint)[2:] == ["hpc.launch", *words[:3], *words[5:], *words[3:5]]
    for run in working:
        assert [a.cause for a in run.attempts()] == ["INTERRUPTED"]
        assert run.attempts()[-1].last_step > 0
        assert not run.is_locked_now()
    again = fork_python("hpc.launch", *words)
    assert again.returncode == 0, again.stderr
    assert [sweep.path for sweep in sweeps(tmp_path / "runs")] == [sweep.path]
    for run in working:
        assert [a.cause for a in run.attempts()] == ["INTERRUPTED", "DONE"]
        assert run.attempts()[1].first_step == run.attempts()[0].last_step
    status = fork_python("hpc.launch", "status", "--config", str(small_file))
    assert "2 runs: 2 done" in status.stdout
    logs = fork_python("hpc.launch", "logs", working[0].label, "--config", str(small_file))
    assert "resumes from step" in logs.stdout


def test_a_worker_that_is_killed_is_replaced_and_its_runs_resume(
    small_file: Path, profile: Path, tmp_path: Path
) -> None:
    words = ["grid", "--config", str(small_file), "--cluster", str(profile), *LONG]
    with launched(*words) as process:
        sweep, working = wait_until_working(tmp_path / "runs", 2)
        status = Path(f"/proc/{working[0].attempts()[-1].pid}/status").read_text()
        worker = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("PPid:"))
        os.kill(worker, signal.SIGKILL)
        output, _ = process.communicate(timeout=200)
    assert process.returncode == 0, output
    assert output.count("started k=") == 4
    for run in sweep.runs():
        ends = ["KILLED", "DONE"] if run in working else ["DONE"]
        assert [a.cause for a in run.attempts()] == ends


def test_a_closed_terminal_saves_all(small_file: Path, profile: Path, tmp_path: Path) -> None:
    terminal = Terminal("hpc.launch", "grid", "--config", str(small_file), "--cluster", str(profile), *LONG)
    _, working = wait_until_working(tmp_path / "runs", 2)
    terminal.close()
    assert terminal.process.wait(60) == 130
    for run in working:
        assert [a.cause for a in run.attempts()] == ["INTERRUPTED"]
        assert run.attempts()[-1].last_step > 0
        assert not run.is_locked_now()


def test_a_run_that_crashes_is_said_and_does_not_take_the_others_along(
    small_file: Path, profile: Path, tmp_path: Path
) -> None:
    words = ["grid", "--config", str(small_file), "--cluster", str(profile), "--set", "hparams.num_modules=[1]"]
    planned = fork_python("hpc.launch", *words, "--dry-run")
    assert planned.returncode == 0, planned.stderr
    assert not (tmp_path / "runs").exists()
    prepared = fork_python("src.checks", "--config", str(small_file))
    assert prepared.returncode == 0, prepared.stderr
    made = fork_python("-c", MAKE_BROKEN, str(small_file))
    assert made.returncode == 0, made.stderr
    done = fork_python("hpc.launch", *words)
    assert done.returncode == 2
    assert "1 of 2 runs not done" in done.stderr
    assert "train.optimizer.lr: -1" in done.stderr
    sweep = sweeps(tmp_path / "runs")[-1]
    assert [run.result() is not None for run in sweep.runs()] == [False, True]
    attempt = sweep.runs()[0].attempts()[-1]
    assert attempt.cause == "CRASHED"
    assert "train.optimizer.lr" in attempt.error
    assert len(sweep.runs()[0].attempts()) == 1
    logs = fork_python("hpc.launch", "logs", sweep.runs()[0].label, "--config", str(small_file))
    assert "train.optimizer.lr: -1" in logs.stdout
    assert "Traceback" not in logs.stdout

    again = fork_python("hpc.launch", *words)
    assert again.returncode == 2
    assert "1 CRASHED" in again.stderr
    assert "retry" in again.stderr
    assert len(sweep.runs()[0].attempts()) == 1
    named = ["--config", str(small_file), "--cluster", str(profile)]
    other = fork_python("hpc.launch", "retry", "--cause", "OUT_OF_MEMORY", *named)
    assert other.returncode == 2
    assert "causes in this sweep: CRASHED" in other.stderr
    text = sweep.runs()[0].config_file.read_text()
    sweep.runs()[0].config_file.write_text(text.replace("lr: -1", "lr: 0.001"))
    fixed = fork_python("hpc.launch", "retry", "--failed", *named)
    assert fixed.returncode == 0, fixed.stderr
    assert "budgets reset for 1 failed run" in fixed.stdout
    assert [a.cause for a in sweep.runs()[0].attempts()] == ["CRASHED", "DONE"]
    status = fork_python("hpc.launch", "status", "--config", str(small_file))
    assert "2 runs: 2 done" in status.stdout
    assert "slice-hours" in status.stdout


# Plans the grid and spoils the configuration of its first run.
MAKE_BROKEN = """
import sys
from src.config.loading import load_config
from src.requests import grid_request
from relay.runs.sweeps import open_sweep
sweep, _ = open_sweep(grid_request(load_config(sys.argv[1], ["hparams.num_modules=[1]"])))
path = sweep.runs()[0].config_file
path.write_text(path.read_text().replace("lr: 0.001", "lr: -1"))
"""


def test_a_dry_run_prints_cells_and_touches_nothing(small_file: Path, tmp_path: Path) -> None:
    before = sorted(tmp_path.iterdir())
    done = fork_python("hpc.launch", "grid", "--config", str(small_file), "--cluster", "local", "--dry-run")
    assert done.returncode == 0, done.stderr
    assert "4 runs of grid" in done.stdout
    assert "k=003_M=2_lr=1.00e-02" in done.stdout
    assert sorted(tmp_path.iterdir()) == before


def test_editing_the_checkout_does_not_change_runs_that_wait(small_file: Path, tmp_path: Path) -> None:
    checkout = tmp_path / "checkout"
    for layer in ("relay", "src", "jobs", "hpc", "configs"):
        shutil.copytree(ROOT / layer, checkout / layer, ignore=shutil.ignore_patterns("__pycache__"))
    words = ["grid", "--config", str(small_file), "--cluster", "local", "--set", "hparams.epochs=12"]
    words += ["--set", "hparams.num_modules=[1]"]
    with launched(*words, root=checkout) as process:
        sweep, _ = wait_until_working(tmp_path / "runs", 1)
        (checkout / "src" / "training" / "trainer.py").write_text("raise SystemExit('this is no engine')\n")
        output, _ = process.communicate(timeout=200)
    assert process.returncode == 0, output
    assert [[a.cause for a in run.attempts()] for run in sweep.runs()] == [["DONE"], ["DONE"]]
    (version,) = (path for path in sweep.code.iterdir() if path.is_dir())
    assert (version / "src" / "training" / "trainer.py").read_text() == (
        ROOT / "src" / "training" / "trainer.py"
    ).read_text()
    spoilt = run_python("hpc.launch", *words, "--fresh", cwd=checkout, env={"PYTHONPATH": str(checkout)})
    assert spoilt.returncode == 2
