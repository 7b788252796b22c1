"""The lines of the page of `verify`."""

from __future__ import annotations

from hpc.recovery.diagnosis import PROGRAM_MARGIN_S
from hpc.submission.profile import Profile
from relay.runs.rundir import RunDir

CAUSES = (
    "usual causes: a generator without a seed (torch.manual_seed), the clock, the order of a set, "
    "a file that grows, an operation without a deterministic kernel"
)


def print_line(what: str, found: str) -> None:
    """What was done, and what was found."""
    print(f"  {what:<34}{found}", flush=True)


def in_the_time_of(profile: Profile, took: str, longest: float, *, in_time: str, too_late: str) -> str:
    """What `took` the `longest`, in seconds, and whether the profile gives it that time before SLURM kills the job."""
    if profile.executor != "slurm":
        return took
    answer = in_time if longest < profile.signal_lead_s - PROGRAM_MARGIN_S else too_late
    return f"{took}: {answer}, the profile warns {profile.signal_lead_s} s before the time limit"


def where_it_holds(run: RunDir) -> str:
    """The device and the versions for which the verdict holds."""
    environments = run.attempts()[-1].environments
    known = environments[-1] if environments else {}
    device = known.get("gpu") or known.get("cpu") or "this machine"
    versions = [f"{name} {known[name]}" for name in ("python", "numpy", "torch") if name in known]
    return ", ".join([f"on {device}", *versions])
