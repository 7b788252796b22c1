"""A real SLURM for the tests, started and removed by the product's own command; never the user's cluster."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from hpc.one_machine.packages import check_installed
from relay.errors import ClusterError

REPOSITORY = Path(__file__).parents[2]
# One slice and one CPU per task: results are equal bit for bit only with the same number of threads.
PROFILE: dict[str, Any] = {
    "executor": "slurm",
    "partition": "gpu",
    "slice": "1g.12gb",
    "cpus": 1,
    "mem_gb": 2,
    "time_min": 10,
    "signal_lead_s": 30,
}
POLL_S = 0.2


def run_command(*words: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """`python -m hpc.one_machine WORDS`, as a user runs it."""
    return subprocess.run(
        [sys.executable, "-m", "hpc.one_machine", *words],
        cwd=REPOSITORY,
        env=os.environ | (env or {}),
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )


def on_profile(profile: Path, *words: str) -> list[str]:
    """The arguments of hpc.launch, with --cluster if the command has this option."""
    return [*words, *([] if words[0] in ("status", "logs", "cancel") else ["--cluster", str(profile)])]


def wait_for(what: str, is_so: Callable[[], bool], timeout_s: float = 30) -> None:
    """Wait until `is_so()`; fail the test with `what` after `timeout_s` seconds."""
    deadline_s = time.monotonic() + timeout_s
    while not is_so():
        if time.monotonic() > deadline_s:
            pytest.fail(f"not within {timeout_s:.0f} s: {what}")
        time.sleep(POLL_S)


@dataclass(frozen=True)
class Cluster:
    """One running cluster. `scratch`: its folder. `env`: the environment of SLURM's commands."""

    name: str
    scratch: Path

    @property
    def conf(self) -> Path:
        return self.scratch / "slurm.conf"

    @property
    def env(self) -> dict[str, str]:
        return os.environ | {"SLURM_CONF": str(self.conf)}

    def run(self, command: Sequence[str]) -> str:
        """Stdout of a SLURM command; the test fails if the command fails."""
        ended = subprocess.run(list(command), env=self.env, capture_output=True, text=True, timeout=60, check=False)
        assert ended.returncode == 0, f"{' '.join(command)}: {ended.stderr}"
        return ended.stdout

    def submit(self, script: str, *options: str) -> str:
        """Job id of a batch job that runs `script` in bash."""
        command = ["sbatch", "--parsable", "--output=/dev/null", *options, f"--wrap={script}"]
        return self.run(command).strip()

    def job(self, job_id: str) -> dict[str, str]:
        """The fields of `scontrol show job`, such as JobState and Restarts."""
        words = self.run(["scontrol", "--oneliner", "show", "job", job_id]).split()
        return dict(word.split("=", 1) for word in words if "=" in word)

    def wait_until(self, job_id: str, state: str, timeout_s: float = 30) -> None:
        wait_for(f"job {job_id} is {state}", lambda: self.job(job_id)["JobState"] == state, timeout_s)

    def skip_wait(self, job_id: str) -> None:
        """Let a requeued job, which waits (Reason=BeginTime), start in two seconds.

        Not at once: a start in the very second of the requeue fails with `Job credential revoked`, and the job with it.
        """
        self.run(["scontrol", "update", f"jobid={job_id}", "starttime=now+2seconds"])


@contextmanager
def cluster_of_its_own(name: str, *options: str) -> Iterator[Cluster]:
    try:
        check_installed()
    except ClusterError as error:
        pytest.skip(str(error))
    parent = Path(tempfile.mkdtemp(prefix="relay-"))
    cluster = Cluster(name, parent / "slurm")
    try:
        ended = run_command("up", "--name", name, "--dir", str(cluster.scratch), *options)
        assert ended.returncode == 0, ended.stderr
        assert ended.stdout == f"export SLURM_CONF={cluster.conf}\n"
        yield cluster
    finally:
        ended = run_command("down", "--name", name)
        shutil.rmtree(parent)
        assert ended.returncode == 0, ended.stderr


@pytest.fixture(scope="session")
def one_machine() -> Iterator[Cluster]:
    """The cluster that all tests of a session share. A test must leave it without jobs and with its nodes up."""
    with cluster_of_its_own(f"test_{os.getpid()}") as cluster:
        yield cluster


@pytest.fixture
def another_machine() -> Iterator[Cluster]:
    """A second cluster beside `one_machine`, for one test, which may take it down."""
    with cluster_of_its_own(f"other_{os.getpid()}", "--nodes", "1", "--no-preempt-user-signal") as cluster:
        yield cluster
