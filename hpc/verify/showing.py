"""The lines of the page of `verify`."""

from __future__ import annotations

from relay.runs.rundir import RunDir

CAUSES = (
    "usual causes: a generator without a seed (torch.manual_seed), the clock, the order of a set, "
    "a file that grows, an operation without a deterministic kernel"
)


def print_line(what: str, found: str) -> None:
    """What was done, and what was found."""
    print(f"  {what:<34}{found}", flush=True)


def where_it_holds(run: RunDir) -> str:
    """The device and the versions for which the verdict holds."""
    environments = run.attempts()[-1].environments
    known = environments[-1] if environments else {}
    device = known.get("gpu") or known.get("cpu") or "this machine"
    versions = [f"{name} {known[name]}" for name in ("python", "numpy", "torch") if name in known]
    return ", ".join([f"on {device}", *versions])
