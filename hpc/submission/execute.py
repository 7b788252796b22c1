"""The missing runs of a sweep go to where its profile says: this machine, or SLURM."""

from __future__ import annotations

from collections.abc import Collection

from hpc.submission.arrays import submit_missing
from hpc.submission.local_run import run_here
from hpc.submission.profile import Profile
from hpc.submission.site import SiteLimits
from src.config.schema import Config
from src.runs.rundir import SweepDir


def execute(
    sweep: SweepDir,
    profile: Profile,
    site: SiteLimits | None,
    config: Config,
    only: Collection[str] | None = None,
    *,
    by_user: bool = True,
) -> None:
    """Bring what is missing of a sweep (of the runs `only`) to this machine, where there is no site, or to SLURM.

    What its user has cancelled is left alone unless this is a command `by_user`.
    """
    if site is None:
        run_here(sweep, profile, config, only)
    else:
        submit_missing(sweep, profile, site, config, only, by_user=by_user)
