"""A short campaign on the cluster of the tests; the long one is `make chaos SEED=... MINUTES=...`."""

from __future__ import annotations

from pathlib import Path

import pytest

from ..conftest import Cluster
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
    assert not problems, f"seed {SHORT.seed}; a longer one is {command_of(SHORT)}\n" + "\n".join(problems)
