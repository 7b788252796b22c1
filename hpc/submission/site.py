"""What a launch asks the site, and what SLURM does with the paths it is given."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from hpc import slurm
from hpc.submission.profile import Profile
from src import hints
from src.errors import ClusterError


@dataclass(frozen=True)
class SiteLimits:
    """What a launch needs to know of a site: the slice by its name there, and the largest array."""

    gres: str | None
    array_size: int


def ask_site(profile_name: str, profile: Profile) -> SiteLimits:
    """Asked once, before anything is written. Raises ClusterError."""
    try:
        site = SiteLimits(choose_gres(profile), slurm.max_array_size())
        slurm.check_programs()
        return site
    except ClusterError as error:
        raise type(error)(
            f"{error}\nprofile {profile_name}; to run on this machine instead: {hints.again('--cluster', 'local')}"
        ) from None


def choose_gres(profile: Profile) -> str | None:
    """`gpu:<type>:1` for the profile's slice, by the name that this site gives it; None if no GPU is asked for.

    The exact name where the profile has it, else the one that `sinfo` shows with the slice's name in it.
    Raises ClusterError if there is none, or more than one.
    """
    if profile.gres:
        return profile.gres
    if not profile.slice:
        return None
    offered = slurm.gres_types()
    fitting = [name for name in offered if name == profile.slice] or [name for name in offered if profile.slice in name]
    if len(fitting) == 1:
        return f"gpu:{fitting[0]}:1"
    shown = ", ".join(offered) or "no GPU at all"
    what = "several of them fit" if fitting else "none of them fits"
    raise ClusterError(
        f"slice: {profile.slice!r}: this site offers {shown}; {what}. "
        "Give the exact one in the profile, as gres: gpu:<type>:1"
    )


def check_job_folder(folder: Path) -> None:
    """Raise ClusterError if the files of jobs in this folder would go elsewhere.

    sbatch(1), filename pattern: SLURM replaces `%j` and the like in --output, and drops backslashes; submitit replaces
    `%j`, `%t`, `%A` and `%a` in its folder too, so that SLURM's `%%` is no way out.
    """
    if re.search(r"[%\\]", str(folder.absolute())):
        raise ClusterError(
            f"paths.runs_dir: {folder.absolute()}: SLURM would replace what follows a % or a \\ in this path; "
            "set paths.runs_dir to a folder without them, or rename the folder"
        )
