"""Execute the missing runs of a sweep where its profile says: on this machine, or on SLURM."""

from __future__ import annotations

from collections.abc import Collection

from hpc.submission.arrays import submit_missing
from hpc.submission.local_run import run_in_pool
from hpc.submission.profile import Profile
from hpc.submission.site import SiteLimits
from relay.config.sections import Paths
from relay.runs.rundir import SweepDir


def execute(
    sweep: SweepDir,
    profile: Profile,
    site: SiteLimits | None,
    paths: Paths,
    only: Collection[str] | None = None,
    *,
    by_user: bool = True,
) -> None:
    """Execute the missing runs of a sweep (of those named in `only`): on SLURM, or here if `site` is None.

    `by_user`: a user's command called this, and not a pipeline's own job. Only the former submits cancelled runs again.
    """
    if site is None:
        run_in_pool(sweep, profile, paths, only)
    else:
        submit_missing(sweep, profile, site, paths, only, by_user=by_user)
