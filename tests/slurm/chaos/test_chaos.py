"""A short campaign on the cluster of the tests; the long one is `make chaos SEED=... MINUTES=...`."""

from __future__ import annotations

from pathlib import Path

import pytest

from ..conftest import Cluster, run_command
from .campaign import Campaign, Plan, command_of

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(600)]

# The faults that strike at once; `make chaos` has all of them.
QUICK = (
    "preemption",
    "requeued",
    "kill -9 process",
    "scancel --signal=TERM",
    "full disk",
    "damaged checkpoint",
    "several submitters",
    "kill -9 launcher",
)
SHORT = Plan(seed=20, minutes=0.6, cells=3, epochs=45, pace_s=4, kinds=QUICK)


def test_every_cell_comes_to_its_end_right_whatever_is_done_to_it(one_machine: Cluster, tmp_path: Path) -> None:
    campaign = Campaign(SHORT, one_machine, tmp_path / "chaos")
    problems = campaign.run()
    print(campaign.table)
    assert campaign.injections
    assert not problems, f"seed {SHORT.seed}, again with {command_of(SHORT)}\n" + "\n".join(problems)


def test_a_daemon_is_stopped_and_started_again(one_machine: Cluster) -> None:
    name = ["--name", one_machine.name]
    assert run_command("stop", "slurmctld", *name).returncode == 0
    try:
        assert f"{one_machine.name}  not running: slurmctld " in run_command("status").stdout
        refused = run_command("up", *name)
        assert (refused.returncode, refused.stdout) == (2, "")
        assert "slurmctld of the cluster" in refused.stderr
    finally:
        assert run_command("start", "slurmctld", *name).returncode == 0
    assert one_machine.run(["scontrol", "ping"]).startswith("Slurmctld(primary)")
    assert "runs already" in run_command("start", "slurmctld", *name).stderr


def test_what_is_no_daemon_is_refused_with_those_there_are(one_machine: Cluster) -> None:
    refused = run_command("stop", "slurm", "--name", one_machine.name)
    assert refused.returncode == 2
    assert "slurm: no daemon of the cluster" in refused.stderr
    assert "munged, mariadbd, slurmdbd, slurmctld, slurmd-node1, slurmd-node2" in refused.stderr
