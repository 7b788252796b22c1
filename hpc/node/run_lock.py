"""Waits for the lock of a run on a shared file system, where a lock may outlive the process that held it.

A flock(2) lock ends with its process, also over NFS 4 (after the lease, 90 s) and on Lustre mounted with `flock`. But
it stays forever if its node went down under NFS 3, or if the disk has no flock and filelock uses a file instead.

Such a lock is broken only if SLURM says that the owner's job is over and the owner has sent no heartbeat for SILENCE_S
seconds. SLURM alone is not enough: processes on a node that SLURM has given up may run for hours.
"""

from __future__ import annotations

import os
import time
from typing import Literal

from hpc import slurm
from hpc.recovery.diagnosis import is_another_job, own_job_id
from relay.errors import ClusterError
from relay.log import log
from relay.progress import StopCheck
from relay.runs.attempt import unfinished_attempt
from relay.runs.lifecycle import last_activity
from relay.runs.ownership import SILENCE_S
from relay.runs.rundir import RunDir

_POLL_S = 1.0
# Seconds between two queries to the controller, and between two lines of the log.
_ASK_EVERY_S, _SAY_EVERY_S = 15.0, 300.0
Owner = Literal["over", "running", "unknown"]


def wait_for_run_lock(run: RunDir, should_stop: StopCheck, silence_s: float = SILENCE_S) -> bool:
    """Wait until the run's lock is free or broken, or a stop is requested. False if another SLURM task executes the
    run.

    If the owner's job is over, wait until its heartbeat has been silent for `silence_s` seconds, then break the lock.
    If SLURM does not know the owner, give up after `silence_s` seconds and return True; taking the lock then fails.
    """
    # By this node's own clock: file times are compared with each other only, as the clocks of two nodes may differ.
    started = last_change = time.monotonic()
    last_query = last_message = -float("inf")
    sign: tuple[float, bytes] | None = None
    owner: Owner = "unknown"
    while run.is_locked_now() and not should_stop():
        now = time.monotonic()
        if (newest := _sign_of_life(run)) != sign:
            sign, last_change = newest, now
        if now - last_query >= _ASK_EVERY_S:
            last_query, owner = now, _owner_state(run)
        if owner == "running":
            return False
        if owner == "over" and now - last_change >= silence_s:
            run.lock_file.unlink(missing_ok=True)
            log.info(f"{run.label}: the job that locked it is over and silent; the lock is broken")
            return True
        if owner == "unknown" and now - started >= silence_s:
            return True
        if now - last_message >= _SAY_EVERY_S:
            last_message = now
            log.info(f"{run.label}: locked by another process; waiting for it to end")
        time.sleep(min(_POLL_S, silence_s))
    return True


def _sign_of_life(run: RunDir) -> tuple[float, bytes]:
    """A value that changes with every heartbeat, every write to the run, and every new owner."""
    owner = run.owner_file.read_bytes() if run.owner_file.exists() else b""
    return last_activity(run), owner


def _owner_state(run: RunDir) -> Owner:
    """The state of the job that holds the run. Unknown for no job, another cluster's, or no answer."""
    owner = unfinished_attempt(run.attempts())
    if owner is None or not owner.on_slurm or owner.cluster != os.environ.get("SLURM_CLUSTER_NAME"):
        return "unknown"
    if owner.job == own_job_id():
        return "over"  # An earlier execution of this same job: SLURM has requeued it.
    try:
        job = slurm.show_job(str(owner.job))
    except ClusterError as error:
        # The controller forgets a job MinJobAge after its end, and then calls its id invalid.
        return "over" if "Invalid job id" in str(error) else "unknown"
    phase = slurm.phase(job.state)
    if phase == "running" and not is_another_job(job, owner):
        return "running"
    # A waiting job was requeued: the execution that held the run is over.
    return "over" if phase in ("over", "waiting", "running") else "unknown"
