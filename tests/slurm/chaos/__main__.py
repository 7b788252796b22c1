"""`python -m tests.slurm.chaos --seed S --minutes M`: a campaign on a cluster of its own.

Exit code 0 if all checks passed, 1 and the seed if one failed, 2 if SLURM is not installed.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import sys
import tempfile
from pathlib import Path

from hpc.one_machine.packages import check_installed
from relay.errors import ClusterError
from tests.slurm.chaos.campaign import DECK, Campaign, Plan, command_of
from tests.slurm.chaos.site import WORKS
from tests.slurm.conftest import cluster_of_its_own


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.slurm.chaos", description=__doc__)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    parser.add_argument("--minutes", type=float, default=20)
    parser.add_argument("--kind", action="append", choices=DECK, help="only these kinds of faults")
    parser.add_argument("--work", action="append", choices=WORKS, help="the works of the rounds, by turns")
    given = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    try:
        check_installed()
    except ClusterError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    plan = Plan(given.seed, given.minutes, kinds=tuple(given.kind or DECK), works=tuple(given.work or Plan.works))
    folder = Path(tempfile.mkdtemp(prefix="relay-chaos-"))
    print(f"{command_of(plan)}, in {folder}", flush=True)
    with cluster_of_its_own(f"chaos_{os.getpid()}", "--requeue-wait-s", "5") as cluster:
        campaign = Campaign(plan, cluster, folder, lambda text: print(text, flush=True))
        problems = campaign.run()
    print(f"\n{campaign.table}\n\n{campaign.rounds} rounds", flush=True)
    for problem in problems:
        print(f"wrong: {problem}", flush=True)
    print(f"FAILED, to repeat it: {command_of(plan)}" if problems else "all checks passed", flush=True)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
