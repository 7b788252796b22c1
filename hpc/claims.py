"""A run's claim on a shared file system, where the process that held it may be gone and its lock not.

A lock of flock(2) ends with its process, also over NFS 4 (there within the lease, 90 s) and on Lustre mounted with
`flock`. Where a node went down under NFS 3, or where the disk has no flock and filelock takes a file in its place, a
lock may outlive its owner for ever. It is broken only when SLURM says that its owner's job is over, and nothing of the
run was written for as long as a task waits: a node that SLURM has lost may still be writing.
"""

from __future__ import annotations

import os
import time

from hpc import slurm, states
from hpc.causes import own_job_id
from src.attempts import last_sign, lost
from src.errors import ClusterError
from src.progress import Reporter, StopCheck
from src.rundir import RunDir

_POLL_S = 1.0


def wait_for_claim(run: RunDir, wait_s: float, should_stop: StopCheck, reporter: Reporter) -> None:
    """Return when the run is free, or a stop is asked for; else after `wait_s` seconds, having broken the lock where
    its owner is gone.
    """
    deadline, sign = time.monotonic() + wait_s, None
    while run.claimed() and not should_stop():
        sign = sign or last_sign(run)
        if time.monotonic() >= deadline:
            if last_sign(run) == sign and _owner_is_gone(run):
                run.claim_file.unlink(missing_ok=True)
                reporter.say(f"{run.label}: its lock was left by a job that is over; the lock is broken")
            return
        time.sleep(_POLL_S)


def _owner_is_gone(run: RunDir) -> bool:
    """Whether the newest attempt was of a job that SLURM knows to be over, or of an earlier execution of this one."""
    owner = lost(run.attempts())
    if owner is None or not owner.get("cluster") or owner["cluster"] != os.environ.get("SLURM_CLUSTER_NAME"):
        return False  # No job, or one of a cluster that cannot be asked from here.
    if owner["job"] == own_job_id():
        return True
    try:
        return not states.in_flight(slurm.show_job(str(owner["job"])).state)
    except ClusterError as error:
        return "Invalid job id" in str(error)
