"""What the site allows: its name for the slice, its largest array, and the paths that its SLURM leaves unchanged."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from hpc import slurm
from hpc.submission.profile import Profile
from relay import hints
from relay.errors import ClusterError


@dataclass(frozen=True)
class SiteLimits:
    """What a plan must know about a site: the slice under the site's name for it, the most tasks of one array, the name
    of the cluster ("": unknown), and the seconds between SIGTERM and SIGKILL.
    """

    gres: str | None
    array_size: int
    cluster: str = ""
    kill_wait_s: int = 30


def ask_site(profile_name: str, profile: Profile) -> SiteLimits:
    """Ask SLURM for the limits, before a launch writes anything. Raises ClusterError if it does not answer."""
    try:
        site = SiteLimits(choose_gres(profile), *slurm.site_settings())
        slurm.check_programs()
        return site
    except ClusterError as error:
        raise type(error)(
            f"{error}\nprofile {profile_name}; to run on this machine instead: {hints.again('--cluster', 'local')}"
        ) from None


def choose_gres(profile: Profile) -> str | None:
    """`gpu:<type>:1` for the profile's slice, under this site's name for it. None if the profile asks for no GPU.

    The profile's own `gres`, if it has one; else the type of `sinfo` that equals or contains the slice's name.
    Raises ClusterError if none or several do.
    """
    if profile.gres:
        return profile.gres
    if not profile.slice:
        return None
    # Sites name MIG types differently: 1g.12gb, nvidia_h100_nvl_1g.12gb.
    offered = slurm.gres_types()
    fitting = [name for name in offered if name == profile.slice] or [name for name in offered if profile.slice in name]
    if len(fitting) == 1:
        return f"gpu:{fitting[0]}:1"
    shown = ", ".join(name or "GPUs without a type" for name in offered) or "no GPU at all"
    what = "several of them fit" if fitting else "none of them fits"
    raise ClusterError(
        f"slice: {profile.slice!r}: this site offers {shown}; {what}. "
        f"Give the exact one in the profile, as gres: {'gpu:1' if offered == [''] else 'gpu:<type>:1'}"
    )


def check_job_folder(folder: Path) -> None:
    """Raise ClusterError if tasks could not work in this folder because of its name."""
    path = str(folder.absolute())
    # sbatch(1), filename pattern: SLURM replaces %j and the like in --output, and drops backslashes. It reads options
    # by the line. A task finds its code, which lies below this folder, by PYTHONPATH.
    reasons = {
        r"[%\\]": "SLURM would replace what follows a % or a \\ in this path",
        ":": "PYTHONPATH, by which tasks find their code, cannot have a : in a path",
        r"[\x00-\x1f\x7f]": "SLURM would read a control character in this path as the end of an option",
    }
    for characters, reason in reasons.items():
        if re.search(characters, path):
            raise ClusterError(
                f"paths.runs_dir: {path}: {reason}; set paths.runs_dir to a folder without them, or rename the folder"
            )
