"""`python -m tests.slurm.chaos.stage EXPERIMENT PROFILE SWEEP`: do the work of a pipeline's job every second."""

from __future__ import annotations

import sys
import time
from pathlib import Path

from hpc.submission.execute import execute
from hpc.submission.profile import load_profile
from hpc.submission.site import ask_site
from relay.config.paths import load_paths
from relay.errors import RelayError
from relay.runs.rundir import SweepDir


def main(experiment: str, profile_file: str, sweep: str) -> None:
    """Submit missing runs until the process is killed. It may be refused while the controller or the disk is away."""
    name, profile = load_profile(profile_file)
    paths = load_paths(experiment)
    while True:
        try:
            execute(SweepDir(Path(sweep)), profile, ask_site(name, profile), paths, by_user=False)
        except (RelayError, OSError) as error:
            print(error, file=sys.stderr)
        time.sleep(1)


if __name__ == "__main__":
    main(*sys.argv[1:])
