"""A run's claim on a shared file system, where the process that held it may be gone and its lock not.

A lock of flock(2) ends with its process, also over NFS 4 (there within the lease, 90 s) and on Lustre mounted with
`flock`. Where a node went down under NFS 3, or where the disk has no flock and filelock takes a file in its place, a
lock may outlive its owner for ever. It is broken only when SLURM says that its owner's job is over and the owner's
heart has not beaten for SILENCE_S seconds: processes on a node that SLURM has given up may go on for hours.
"""

from __future__ import annotations

import os
import time
from typing import Literal

from hpc import slurm
from hpc.recovery.diagnosis import own_job_id
from src.errors import ClusterError
from src.progress import Reporter, StopCheck
from src.runs.attempts import last_activity, unfinished_attempt
from src.runs.ownership import SILENCE_S
from src.runs.rundir import RunDir

_POLL_S = 1.0
# Between two questions to the controller, and between two lines of the log.
_ASK_EVERY_S, _SAY_EVERY_S = 15.0, 300.0
Owner = Literal["over", "running", "unknown"]


def wait_for_run_lock(run: RunDir, should_stop: StopCheck, reporter: Reporter, silence_s: float = SILENCE_S) -> bool:
    """Wait until the run is free, a stop is asked for, or its lock is broken after a long silence of its owner.

    False if this task is one too many: another task of SLURM's executes the run. An owner that SLURM does not know
    is waited for `silence_s` seconds; one whose job is over for as long as its heart beats.
    """
    begun = heard = time.monotonic()
    asked = said = -float("inf")
    sign: tuple[float, bytes] | None = None
    owner: Owner = "unknown"
    while run.is_locked_now() and not should_stop():
        now = time.monotonic()
        if (found := _sign(run)) != sign:
            sign, heard = found, now
        if now - asked >= _ASK_EVERY_S:
            asked, owner = now, _owner_of(run)
        if owner == "running":
            return False
        if owner == "over" and now - heard >= silence_s:
            run.lock_file.unlink(missing_ok=True)
            reporter.say(f"{run.label}: its lock was left by a job that is over; the lock is broken")
            return True
        if owner == "unknown" and now - begun >= silence_s:
            return True
        if now - said >= _SAY_EVERY_S:
            said = now
            reporter.say(f"{run.label}: another process executes it; waiting for it")
        time.sleep(min(_POLL_S, silence_s))
    return True


def _sign(run: RunDir) -> tuple[float, bytes]:
    """Changes with every sign of life, and with the owner."""
    owner = run.owner_file.read_bytes() if run.owner_file.exists() else b""
    return last_activity(run), owner


def _owner_of(run: RunDir) -> Owner:
    """What SLURM says of the job that holds the run. Unknown: no job, one of another cluster, or nobody answers."""
    owner = unfinished_attempt(run.attempts())
    if owner is None or not owner.get("cluster") or owner["cluster"] != os.environ.get("SLURM_CLUSTER_NAME"):
        return "unknown"
    if owner["job"] == own_job_id():
        return "over"  # An earlier execution of this very job, which SLURM has put back.
    try:
        phase = slurm.phase(slurm.show_job(str(owner["job"])).state)
    except ClusterError as error:
        return "over" if "Invalid job id" in str(error) else "unknown"
    if phase == "running":
        return "running"
    # One that waits was requeued: the execution that holds the run is over.
    return "over" if phase in ("over", "waiting") else "unknown"
