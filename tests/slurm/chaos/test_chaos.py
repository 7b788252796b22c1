"""A short campaign; the long one is `make chaos SEED=... MINUTES=...`."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.slurm.chaos.campaign import Campaign, Plan, command_of
from tests.slurm.conftest import Cluster, cluster_of_its_own, run_command

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(600)]

# The faults that take effect at once; `make chaos` has all of them.
QUICK = (
    "preemption",
    "requeued",
    "kill -9 process",
    "kill -9 program",
    "scancel --signal=TERM",
    "full disk",
    "damaged checkpoint",
    "several submitters",
    "kill -9 launcher",
)
SHORT = Plan(seed=20, minutes=0.6, cells=3, epochs=45, pace_s=4, kinds=QUICK)
PROGRAM = replace(SHORT, seed=21, works=("program", "images"))
COMMAND = replace(SHORT, seed=22, works=("command", "program"))


@pytest.fixture(scope="module")
def own_cluster() -> Iterator[Cluster]:
    """A separate cluster: SLURM may drain a node during a campaign, which would disturb the other tests."""
    with cluster_of_its_own(f"chaos_{os.getpid()}", "--requeue-wait-s", "5") as cluster:
        yield cluster


@pytest.mark.parametrize("plan", [SHORT, PROGRAM, COMMAND], ids=["images", "program", "command"])
def test_every_cell_comes_to_its_end_right_whatever_is_done_to_it(
    own_cluster: Cluster, tmp_path: Path, plan: Plan
) -> None:
    campaign = Campaign(plan, own_cluster, tmp_path / "chaos")
    problems = campaign.run()
    print(campaign.table)
    assert campaign.injections
    assert not problems, f"seed {plan.seed}, again with {command_of(plan)}\n" + "\n".join(problems)


def test_a_daemon_is_stopped_and_started_again(own_cluster: Cluster) -> None:
    name = ["--name", own_cluster.name]
    assert run_command("stop", "slurmctld", *name).returncode == 0
    try:
        assert f"{own_cluster.name}  not running: slurmctld " in run_command("status").stdout
        refused = run_command("up", *name)
        assert (refused.returncode, refused.stdout) == (2, "")
        assert "slurmctld of the cluster" in refused.stderr
    finally:
        assert run_command("start", "slurmctld", *name).returncode == 0
    assert own_cluster.run(["scontrol", "ping"]).startswith("Slurmctld(primary)")
    assert "is already running" in run_command("start", "slurmctld", *name).stderr


def test_what_is_no_daemon_is_refused_with_those_there_are(own_cluster: Cluster) -> None:
    refused = run_command("stop", "slurm", "--name", own_cluster.name)
    assert refused.returncode == 2
    assert "slurm: not a daemon of the cluster" in refused.stderr
    assert "munged, mariadbd, slurmdbd, slurmctld, slurmd-node1, slurmd-node2" in refused.stderr
