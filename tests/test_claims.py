"""Claims between processes: real locks, held by real processes; SLURM's word on a job is stood in for."""

from __future__ import annotations

import errno
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hpc.claims import wait_for_claim
from src.attempts import attempt
from src.config import Config
from src.errors import RunError
from src.outcome import Outcome
from src.plans import train_request
from src.progress import PlainReporter
from src.rundir import RunDir
from src.sweeps import open_sweep

from .conftest import ROOT, fake

HOLD = """
import sys
from pathlib import Path
from src.rundir import RunDir
with RunDir(Path(sys.argv[1])).claim():
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def run(small: Callable[..., Config]) -> RunDir:
    return open_sweep(train_request(small()))[0].runs()[0]


@pytest.fixture
def holder(run: RunDir) -> Iterator[subprocess.Popen[str]]:
    """Another process that has the run."""
    command = [sys.executable, "-c", HOLD, str(run.path)]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def never() -> bool:
    return False


def no_work(*_: object) -> Outcome:
    return Outcome("done", 0, 0, 0)


def test_a_claim_excludes_other_processes_and_ends_with_its_own(run: RunDir, holder: subprocess.Popen[str]) -> None:
    assert run.claimed()
    with pytest.raises(RunError, match="executed by another process"):
        attempt(run, no_work, never, PlainReporter())
    holder.kill()
    holder.wait()
    assert not run.claimed()
    attempt(run, no_work, never, PlainReporter())
    assert run.attempts()[-1]["cause"] == "DONE"


@pytest.mark.parametrize(
    ("answer", "broken"),
    [
        ("echo 'JobId=70 JobState=NODE_FAIL Restarts=0'", True),
        ("echo 'slurm_load_jobs error: Invalid job id specified' >&2; exit 1", True),
        ("echo 'JobId=70 JobState=RUNNING Restarts=0'", False),
        ("echo 'JobId=70 JobState=QUANTUM_HOLD Restarts=0'", False),
        ("echo 'Unable to contact slurm controller' >&2; exit 1", False),
    ],
)
def test_a_lock_is_broken_only_where_its_owners_job_is_over(
    monkeypatch: pytest.MonkeyPatch,
    run: RunDir,
    holder: subprocess.Popen[str],
    commands: Path,
    answer: str,
    broken: bool,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("SLURM_CLUSTER_NAME", "c")
    run.record_attempt(1, job="70", cluster="c", start=time.time())
    fake(commands, "scontrol", answer)
    wait_for_claim(run, 0, never, PlainReporter())
    assert run.claimed() != broken
    assert ("the lock is broken" in capsys.readouterr().err) == broken


def test_a_lock_stays_while_its_owner_writes_or_is_no_job(
    run: RunDir, holder: subprocess.Popen[str], commands: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake(commands, "scontrol", "echo 'JobId=70 JobState=NODE_FAIL Restarts=0'")
    run.record_attempt(1, job="70", start=time.time())
    wait_for_claim(run, 0, never, PlainReporter())
    assert run.claimed(), "a process of this machine has no job that SLURM could know"
    run.record_attempt(1, cluster="c")
    monkeypatch.setenv("SLURM_CLUSTER_NAME", "other")
    wait_for_claim(run, 0, never, PlainReporter())
    assert run.claimed(), "the other cluster does not know that job"
    monkeypatch.setenv("SLURM_CLUSTER_NAME", "c")
    signs = iter([1.0, 2.0])
    monkeypatch.setattr("hpc.claims.last_sign", lambda run: next(signs))
    wait_for_claim(run, 0, never, PlainReporter())
    assert run.claimed(), "somebody still writes"


def test_the_lock_of_an_earlier_execution_of_this_very_job_is_broken(
    run: RunDir, holder: subprocess.Popen[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run.record_attempt(1, job="70", cluster="c", start=time.time())
    monkeypatch.setenv("SLURM_CLUSTER_NAME", "c")
    monkeypatch.setenv("SLURM_JOB_ID", "70")
    wait_for_claim(run, 0, never, PlainReporter())
    assert not run.claimed()


def test_without_flock_a_file_takes_its_place(run: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(descriptor: int, operation: int) -> None:
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr("fcntl.flock", missing)
    refused: list[bool] = []
    with warnings.catch_warnings(record=True, action="always") as warned, run.claim():
        other = threading.Thread(target=lambda: refused.append(run.claimed()))
        other.start()
        other.join()
    assert "flock not supported" in str(warned[0].message)
    assert refused == [True]
    assert not run.claimed()
