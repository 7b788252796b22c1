"""Whom SLURM's signals reach in a step, by the way in which SLURM tracks processes: linuxproc or cgroup.

The step is a supervisor with children. Those behind `bash -c 'a; b'` and `timeout` have these as parents. Seen with
SLURM 22.05:

| event | linuxproc | cgroup |
|---|---|---|
| SIGUSR2 of `--signal` or `scancel --signal` | every descendant | the supervisor |
| SIGTERM of `scancel` or the time limit | every descendant | the supervisor |
| SIGKILL, 30 s later (KillWait) | every descendant | all |
| the supervisor is killed | nobody else ends | all end at once |

With linuxproc, these are the descendants of slurmstepd at that moment. A signal that ends `bash` or `timeout` takes its
child out of SLURM's reach: the child outlives even the job. With cgroup, nothing leaves the group. A session of its own
changes nothing in either.

Not in the table: `--signal` without `B:` leaves the batch script alone. SIGCONT comes as well, at varying times. If
children of a killed supervisor keep its output open, linuxproc ends their step only a minute later.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from hpc.one_machine import cgroups
from tests.slurm.conftest import Cluster, cluster_of_its_own, wait_for

pytestmark = pytest.mark.slurm

FAMILY = Path(__file__).with_name("family.py")
WITH_HANDLER = {"supervisor", "child", "session", "env", "in_bash", "in_timeout"}
WITHOUT_HANDLER = {"bash", "timeout"}
EVERYBODY = WITH_HANDLER | WITHOUT_HANDLER
KILL_TIMEOUT_S = 45.0  # KillWait is 30 s


@dataclass(frozen=True)
class Family:
    """A job of which `folder` has the records."""

    cluster: Cluster
    folder: Path
    job_id: str

    def pid(self, name: str) -> int:
        return int((self.folder / f"{name}.pid").read_text())

    def is_complete(self) -> bool:
        return self.living() == EVERYBODY

    def living(self) -> set[str]:
        return {path.stem for path in self.folder.glob("*.pid") if self._is_alive(path.stem)}

    def got(self, name: str) -> set[str]:
        """Who recorded this signal."""
        return {path.stem for path in self.folder.glob("*.signals") if name in path.read_text().split()}

    def kill(self, name: str) -> None:
        if self._is_alive(name):
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid(name), signal.SIGKILL)

    def end_unreached(self, names: set[str], state: str) -> None:
        """Until then, slurmstepd waits for the end of their output, and the job is COMPLETING."""
        for name in names:
            self.kill(name)
        self.cluster.wait_until(self.job_id, state, timeout_s=10)

    def end(self) -> None:
        """Also those that SLURM no longer reaches."""
        self.cluster.run(["scancel", "--quiet", self.job_id])
        for path in self.folder.glob("*.pid"):
            self.kill(path.stem)

    def _is_alive(self, name: str) -> bool:
        """False for a zombie, which has no command line, and for a later process with the same pid."""
        try:
            return str(self.folder).encode() in Path(f"/proc/{self.pid(name)}/cmdline").read_bytes()
        except OSError:
            return False


Families = dict[tuple[str, str], Family]
"""By the cluster's way of tracking processes, and by what happens to them."""

EVENTS = ("killed", "killed_quiet", "signalled", "cancelled", "limited")


def start_family(cluster: Cluster, folder: Path, event: str) -> Family:
    words = [sys.executable, "-I", "-S", str(FAMILY), str(folder), "supervisor"]
    words += ["--quiet"] if event == "killed_quiet" else []
    limit = ["--time=1", "--signal=USR2@15"] if event == "limited" else ["--time=10"]
    job_id = cluster.submit(f"srun --unbuffered --output={folder}/log {' '.join(words)}", *limit, "--mem=500M")
    return Family(cluster, folder, job_id)


@pytest.fixture(scope="module")
def families(one_machine: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Families]:
    """All start at once, because most of the tests is waiting."""
    with contextlib.ExitStack() as stack:
        clusters = {"linuxproc": one_machine}
        if not cgroups.why_not("freezer"):
            own = cluster_of_its_own(f"cgroup_{os.getpid()}", "--proctrack", "cgroup", "--nodes", "1")
            clusters["cgroup"] = stack.enter_context(own)
        stack.callback(
            wait_for, "no job is left", lambda: one_machine.run(["squeue", "--noheader"]) == "", KILL_TIMEOUT_S
        )
        started = {}
        for proctrack, cluster in clusters.items():
            for event in EVENTS:
                folder = tmp_path_factory.mktemp(f"{proctrack}_{event}")
                started[proctrack, event] = start_family(cluster, folder, event)
                stack.callback(started[proctrack, event].end)
        for family in started.values():
            wait_for(f"{family.folder} is complete", family.is_complete)
        yield started


@pytest.fixture(params=["linuxproc", "cgroup"])
def proctrack(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    if name == "cgroup" and (reason := cgroups.why_not("freezer")):
        pytest.skip(reason)
    return name


def test_children_of_a_killed_supervisor(families: Families, proctrack: str) -> None:
    loud, quiet = families[proctrack, "killed"], families[proctrack, "killed_quiet"]
    for family in (loud, quiet):
        family.kill("supervisor")
    quiet.cluster.wait_until(quiet.job_id, "FAILED", timeout_s=10)
    if proctrack == "cgroup":
        loud.cluster.wait_until(loud.job_id, "FAILED", timeout_s=10)
        assert (loud.living(), quiet.living()) == (set(), set())
    else:
        orphans = EVERYBODY - {"supervisor"}
        assert (loud.living(), quiet.living()) == (orphans, orphans)
        assert loud.cluster.job(loud.job_id)["JobState"] == "RUNNING"


def test_a_signal_of_scancel(families: Families, proctrack: str) -> None:
    family = families[proctrack, "signalled"]
    family.cluster.run(["scancel", "--signal=USR2", family.job_id])
    reached = WITH_HANDLER if proctrack == "linuxproc" else {"supervisor"}
    wait_for(f"SIGUSR2 reaches {reached}", lambda: family.got("SIGUSR2") == reached)
    survivors = WITH_HANDLER if proctrack == "linuxproc" else EVERYBODY
    wait_for(f"{survivors} survive SIGUSR2", lambda: family.living() == survivors)
    assert family.cluster.job(family.job_id)["JobState"] == "RUNNING"


def test_scancel(families: Families, proctrack: str) -> None:
    """`timeout` passes SIGTERM on and waits, so its child stays in reach of linuxproc; bash just ends."""
    family = families[proctrack, "cancelled"]
    family.cluster.run(["scancel", family.job_id])
    reached = WITH_HANDLER if proctrack == "linuxproc" else {"supervisor"}
    wait_for(f"SIGTERM reaches {reached}", lambda: family.got("SIGTERM") == reached)
    survivors = EVERYBODY - {"bash"} if proctrack == "linuxproc" else EVERYBODY
    wait_for(f"{survivors} survive SIGTERM", lambda: family.living() == survivors)
    unreached = {"in_bash"} if proctrack == "linuxproc" else set()
    wait_for(f"{unreached} survive SIGKILL", lambda: family.living() == unreached, KILL_TIMEOUT_S)
    assert family.got("SIGUSR2") == set()
    family.end_unreached(unreached, "CANCELLED")


def test_the_warning_and_the_time_limit(families: Families, proctrack: str) -> None:
    """SLURM looks at the clock every 30 s: the warning comes after 15 to 45 s, and SIGTERM after 60 to 90 s."""
    family = families[proctrack, "limited"]
    warned = WITH_HANDLER if proctrack == "linuxproc" else {"supervisor"}
    wait_for(f"SIGUSR2 reaches {warned}", lambda: family.got("SIGUSR2") == warned, timeout_s=60)
    # Its SIGUSR2 ended bash and timeout, so that linuxproc no longer finds their children.
    in_reach = WITH_HANDLER - {"in_bash", "in_timeout"} if proctrack == "linuxproc" else {"supervisor"}
    wait_for(f"SIGTERM reaches {in_reach}", lambda: family.got("SIGTERM") == in_reach, timeout_s=90)
    unreached = {"in_bash", "in_timeout"} if proctrack == "linuxproc" else set()
    wait_for(f"{unreached} survive SIGKILL", lambda: family.living() == unreached, KILL_TIMEOUT_S)
    family.end_unreached(unreached, "TIMEOUT")
