"""A cancel stops processes that no signal from here reaches, and ends none that is not its run."""

from __future__ import annotations

import json
import os
import subprocess
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from hpc.monitor.cancel import cancel_runs
from hpc.node.execution import execute_run
from hpc.recovery.diagnosis import LOCAL_JOB, StopRequest
from hpc.submission.here import execute_here
from jobs.grid import GRID
from relay.progress import PlainReporter, Reporter, StopCheck
from relay.runs.lifecycle import Outcome
from relay.runs.rundir import RunDir, SweepDir
from relay.runs.sweeps import open_sweep
from src.config.schema import Config
from src.requests import grid_request
from tests.conftest import command_environment, fake
from tests.fork_server import fork_server
from tests.node.waiting import pid_of

HOLD = """
import sys, time
from pathlib import Path
from relay.runs.rundir import RunDir
with RunDir(Path(sys.argv[1])).lock(), RunDir(Path(sys.argv[1])).owned():
    print("held", flush=True)
    sys.stdin.read()
"""
# It begins as on another host.
PROGRAM = """
import socket
socket.gethostname = lambda: "login2"
from pathlib import Path
from relay.runs.rundir import RunDir
run = RunDir(Path({path!r}))
"""
FOREGROUND = """
from hpc.submission.here import execute_here
from jobs.grid import GRID
execute_here(run.sweep(), GRID)
"""
IN_POOL = "from hpc.node.task import execute_runs; execute_runs([run])"
SHARING_A_TASK = "from hpc.node.task import execute_runs; execute_runs([run, run.sweep().runs()[1]])"


@pytest.fixture
def sweep(small: Callable[..., Config], commands: Path) -> SweepDir:
    """Two runs that take forever; SLURM knows nothing of them."""
    fake(commands, "squeue", "true")
    return open_sweep(grid_request(small(hparams={"lr": [0.01, 0.02], "epochs": 2000})))[0]


@pytest.fixture
def run(sweep: SweepDir) -> RunDir:
    return sweep.runs()[0]


@pytest.mark.parametrize("program", [FOREGROUND, IN_POOL, SHARING_A_TASK])
def test_a_run_on_another_host_is_stopped_by_its_own_process(
    small: Callable[..., Config], run: RunDir, tmp_path: Path, capsys: pytest.CaptureFixture[str], program: str
) -> None:
    code = PROGRAM.format(path=str(run.path)) + program
    files = [str(tmp_path / name) for name in ("stdout", "stderr")]
    fork_server().start(
        words=["-c", code],
        files=files,
        environment=command_environment({LOCAL_JOB: "1"}),
        timeout_s=120,
    )
    pid_of(run)
    cancel_runs(small().paths, run.sweep().name)
    fork_server().wait()
    said = capsys.readouterr().out
    assert f"{run.sweep().name}: cancelled 1 run outside of the queue\n" in said
    assert f"executed on login2; these stop at their next step, with the state saved:\n  {run.label}\n" in said
    assert "these will not start" in said, "the other run"
    (attempt,) = run.attempts()
    assert attempt.cause == "CANCELLED"
    assert attempt.last_step > 0
    assert not run.alive()


@pytest.fixture
def bystander() -> Iterator[subprocess.Popen[bytes]]:
    """A process of the same user that is none of its runs."""
    with subprocess.Popen(["sleep", "60"]) as process:
        yield process
        process.kill()


@pytest.mark.parametrize("locked", [True, False])
@pytest.mark.parametrize("file", ["attempts.jsonl", ".owner.json"])
def test_a_process_id_in_a_run_directory_gets_no_signal(
    small: Callable[..., Config],
    run: RunDir,
    bystander: subprocess.Popen[bytes],
    request: pytest.FixtureRequest,
    locked: bool,
    file: str,
) -> None:
    if locked:
        request.getfixturevalue("holder")
    facts = {"pid": bystander.pid, "node": os.uname().nodename}
    run.record_attempt(1, start=1.0, **(facts if file == "attempts.jsonl" else {}))
    if file == ".owner.json":
        run.owner_file.write_text(json.dumps({"token": "x", **facts}))
    cancel_runs(small().paths, "all")
    assert run.cancelled()
    with pytest.raises(subprocess.TimeoutExpired):
        bystander.wait(0.3)


def test_a_cancel_of_one_run_in_the_foreground_leaves_the_others_and_holds(sweep: SweepDir) -> None:
    second = sweep.runs()[1]

    def execute(run: RunDir, should_stop: StopCheck, reporter: Reporter) -> Outcome:
        if run == second:
            run.write_result({"steps": 3})
            return Outcome("done", 0, 3, 3)
        run.cancel()
        waited = threading.Event()
        while not should_stop():
            waited.wait(0.01)
        # Even if the same command is given again before the run has saved.
        run.lift_cancel()
        return Outcome("stopped", 0, 1, 3)

    execute_here(sweep, replace(GRID, execute=execute))
    assert [attempt.cause for run in sweep.runs() for attempt in run.attempts()] == ["CANCELLED", "DONE"]


def test_a_cancel_ends_the_wait_for_a_lock(run: RunDir, holder: subprocess.Popen[str]) -> None:
    threading.Timer(0.2, run.cancel).start()
    assert execute_run(run, StopRequest(), PlainReporter()) == "CANCELLED"
    assert run.attempts() == ()
