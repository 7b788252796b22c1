"""A real SLURM of the tests' own: brought up by the product's command, torn down by it, never the user's cluster."""

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
from src.errors import ClusterError

REPOSITORY = Path(__file__).parents[2]
# One slice and one CPU for a task: the number of threads is part of what must be equal.
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
    """`python -m hpc.one_machine WORDS`, as a user types it."""
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
    """The words of a command of hpc.launch, with the profile where the command takes one."""
    return [*words, *([] if words[0] in ("status", "logs", "cancel") else ["--cluster", str(profile)])]


def wait_for(what: str, is_so: Callable[[], bool], timeout_s: float = 30) -> None:
    """Fails the test if it is not so in time; `what` is what the failure says."""
    deadline_s = time.monotonic() + timeout_s
    while not is_so():
        if time.monotonic() > deadline_s:
            pytest.fail(f"not within {timeout_s:.0f} s: {what}")
        time.sleep(POLL_S)


@dataclass(frozen=True)
class Cluster:
    """One running cluster. `scratch` is its folder (configuration and logs), `env` what its commands need."""

    name: str
    scratch: Path

    @property
    def conf(self) -> Path:
        return self.scratch / "slurm.conf"

    @property
    def env(self) -> dict[str, str]:
        return os.environ | {"SLURM_CONF": str(self.conf)}

    def run(self, command: Sequence[str]) -> str:
        """Stdout of a command of SLURM's; the test fails if it fails."""
        ended = subprocess.run(list(command), env=self.env, capture_output=True, text=True, timeout=60, check=False)
        assert ended.returncode == 0, f"{' '.join(command)}: {ended.stderr}"
        return ended.stdout

    def submit(self, script: str, *options: str) -> str:
        """Job id of a batch job that runs `script` in bash."""
        command = ["sbatch", "--parsable", "--output=/dev/null", *options, f"--wrap={script}"]
        return self.run(command).strip()

    def job(self, job_id: str) -> dict[str, str]:
        """What `scontrol show job` says of one job, such as JobState and Restarts."""
        words = self.run(["scontrol", "--oneliner", "show", "job", job_id]).split()
        return dict(word.split("=", 1) for word in words if "=" in word)

    def wait_until(self, job_id: str, state: str, timeout_s: float = 30) -> None:
        wait_for(f"job {job_id} is {state}", lambda: self.job(job_id)["JobState"] == state, timeout_s)

    def skip_wait(self, job_id: str) -> None:
        """A requeued job is held for a while (Reason=BeginTime); this lets it start in two seconds.

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
    """The cluster that all tests of a session share: leave it without jobs, and with its nodes up."""
    with cluster_of_its_own(f"test_{os.getpid()}") as cluster:
        yield cluster


@pytest.fixture
def another_machine() -> Iterator[Cluster]:
    """A second cluster beside `one_machine`, for one test, which may take it down."""
    with cluster_of_its_own(f"other_{os.getpid()}", "--nodes", "1", "--no-preempt-user-signal") as cluster:
        yield cluster
